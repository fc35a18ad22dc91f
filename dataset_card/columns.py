"""What each column of a dataset means, in words for the card and for Croissant."""

COLUMNS: dict[str, str] = {
    "image": "the photograph, in its original bytes",
    "image_id": "16 hex digits of the sha256 of `path`: opaque and unique",
    "image_sha256": "sha256 of the photograph's bytes; copies share it",
    "path": "the file in the source collection; it names the class, so never give it to a model",
    "label": "the source's folder name",
    "description": "what the model wrote, uncut and unedited",
    "findings": "JSON in a closed vocabulary that the model was held to while it wrote; empty where it failed",
    "finish_reason": "why the model stopped: `stop` by itself, `length` at the limit of tokens",
    "temperature": "of the sampler that gave this text: higher than the run's where a flagged answer was asked again",
    "n_image_tokens": "tokens that stood for the photograph; 0 where the engine does not tell",
    "n_prompt_tokens": "tokens of the whole prompt, the photograph's among them",
    "n_output_tokens": "tokens of the answer",
    "n_tiles": "tiles that the photograph was cut into",
    "flags": "what looks suspicious about the text; a flag never changes it",
    "duplicate_group": "shared by copies of one photograph; empty where there are none",
    "split_official": "the source's split, with a validation part taken out of train where the source has none",
    "split_clean": "the same without copies and contradictions: `train`, `validation`, `test` or `excluded`",
    "in_balanced_subset": "equally many rows of clean train for every class",
    "review": "a reviewer's mark: `good`, `wrong` or `unsure`; empty where nobody looked",
    "review_note": "what the reviewer wrote beside the mark",
}

FLAGS: dict[str, str] = {
    "empty": "no letter in it",
    "names_label": "a word of a class's name, or a synonym",
    "no_findings": "no findings of the schema",
    "not_english": "foreign letters, or hardly an English function word",
    "prompt_echo": "eight words of the prompt in a row",
    "refusal": "the model declines to answer",
    "repetition": "a phrase or sentence over and over",
    "truncated": "cut off at the limit of tokens",
}
