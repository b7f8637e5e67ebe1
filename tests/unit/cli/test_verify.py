"""`tailor verify`."""

from tailor.api.registry.v1 import objects_pb2
from tests.unit.cli.conftest import Services, Tailor

URI = f"s3://corpus/documents/{'ab' * 32}"


def test_names_every_damaged_object_and_its_documents_over_all_pages(tailor: Tailor, services: Services) -> None:
    damaged = objects_pb2.DamagedObject(uri=URI, document_ids=["doc_1", "doc_2"])
    services.objects.pages = {
        "": objects_pb2.VerifyObjectsResponse(objects=3, bytes=2_000_000, unnamed=1, next_page_token="models/x"),
        "models/x": objects_pb2.VerifyObjectsResponse(objects=2, bytes=1_000_000, damaged=[damaged]),
    }
    outcome = tailor("verify")
    assert outcome.code == 1
    assert URI in outcome.out.replace("\n", "") and "doc_1" in outcome.out and "doc_2" in outcome.out
    assert "5 objects of 3 MB read, 1 damaged." in outcome.err and "1 of them are not named" in outcome.err
    assert tailor("--output=json", "verify").document["damaged"] == [{"uri": URI, "document_ids": ["doc_1", "doc_2"]}]


def test_whole_objects_are_counted(tailor: Tailor, services: Services) -> None:
    services.objects.pages[""].objects = 7
    outcome = tailor("verify")
    assert outcome.code == 0 and "7 objects of 0 MB read, 0 damaged." in outcome.err
