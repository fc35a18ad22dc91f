"""What the descriptions of the fixture `dataset` say of each class: words of its own, that a classifier can learn."""

WORDS = {"papule": "small raised spot", "plaque": "wide scaly area"}
