"""`python -m services.synthetic`"""

from services.synthetic.bootstrap import build
from services.synthetic.settings import Settings
from tailor.runtime import main

if __name__ == "__main__":
    main("synthetic", Settings, build)
