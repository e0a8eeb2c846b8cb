"""The number of hostile inputs in all files here."""

import test_archives
import test_commands
import test_fields
import test_flags
import test_images
import test_recipe_files
import test_weight_files
import test_workdirs

CORPUS = {
    "flags": [*test_flags.FLAGS, *test_flags.IN_A_SHELL],
    "fields": [*test_fields.FIELDS, *(("option", *each) for each in test_fields.OPTIONS)],
    "recipes": [*test_recipe_files.RECIPES, *test_recipe_files.PATHS],
    "commands": test_commands.COMMANDS,
    "images": test_images.IMAGES,
    "weights": [*test_weight_files.CASES, *test_weight_files.PATHS],
    "workdirs": [
        *(("config.json", content) for content, _ in test_workdirs.CONFIGS),
        *(("metrics.jsonl", content) for content in test_workdirs.METRICS),
        *test_workdirs.PLACES,
        *test_workdirs.NAMES,
    ],
    "checkpoints": list(test_workdirs.DAMAGES),
    "archives": list(test_archives.MEMBERS),
}


def test_there_are_hundreds_and_none_twice():
    counts = {kind: len({repr(each) for each in inputs}) for kind, inputs in CORPUS.items()}
    assert counts == {kind: len(inputs) for kind, inputs in CORPUS.items()}
    assert sum(counts.values()) >= 600, counts
