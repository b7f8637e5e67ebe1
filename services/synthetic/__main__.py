"""`python -m services.synthetic`"""

if __name__ == "__main__":
    # The processes that make rows read this file again; they need nothing of this.
    from services.synthetic.bootstrap import build
    from services.synthetic.settings import Settings
    from tailor.runtime import main

    main("synthetic", Settings, build)
