"""Erasing imported rows: the file of their import is written again without them."""

from collections.abc import Callable, Container
from dataclasses import dataclass

from services.synthetic.imports.domain import DatasetImport, with_file
from services.synthetic.imports.files import ImportFiles
from services.synthetic.imports.ports import Imports


@dataclass(frozen=True)
class ImportEraser:
    """Erases imported rows. `erased` are the ids of everything that is erased."""

    imports: Imports
    files: ImportFiles
    erased: Container[str]

    def forget(self, text_id: str) -> int:
        """Delete the row with this id, and every other erased row of its import; returns their number. Idempotent. Blocks."""
        name = self.imports.find_text(text_id)
        if name is None:
            return 0
        with self.imports.changing(name):
            item = self.imports.find(name)
            if item is None:
                return 0
            return drop_rows(self.imports, self.files, item, lambda key: key == text_id or key in self.erased)


def drop_rows(imports: Imports, files: ImportFiles, item: DatasetImport, is_erased: Callable[[str], bool]) -> int:
    """Delete the erased rows from an import's file, or from its chunks before it is finished. Idempotent. Needs the lock."""
    name = item.spec.name
    erased = {text_id: part for text_id, part in imports.texts(name) if is_erased(text_id)}
    if item.file is None:
        for part in sorted(set(erased.values())):
            files.drop_from_part(name, part, erased)
    elif erased:
        file = files.drop_from_file(name, item.file, erased)
        imports.finish(with_file(item, file))
        files.keep_only(name, file.ref)
    imports.drop_texts(list(erased))
    return len(erased)
