"""How often the content policy refuses prompts that need no refusal.

    python benchmarks/safety.py --data /path/to/data

The prompt sets are those of public benchmarks (`prompts/`): PartiPrompts, T2I-CoReBench, UniGenBench and WeGenBench, in
English and Chinese, written for measuring and read before they were published: every refusal counts as a false alarm.
AIGIQA-20K holds what people typed into a public service; it is measured too, without a goal, since some of it is to be
refused. The baseline is the usual filter: one word of the class `adult` or `violent` anywhere. Recall is measured on
the labelled prompts of the tests, which the author of the lists wrote.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from time import perf_counter

import yaml

from diffusiongpt.safety import Asked, WordCheck
from diffusiongpt.understanding import read_literals, safety_lists

LABELLED = Path(__file__).parents[1] / "tests" / "safety" / "labelled.yaml"

GOAL = 0.005
"""Largest share of false alarms in `standard`."""

SETS = {
    "PartiPrompts": ("prompts/partiprompts.tsv", "Prompt"),
    "T2I-CoReBench": ("prompts/t2i_corebench.csv", "prompt"),
    "UniGenBench en": ("prompts/unigenbench_dev.csv", "prompt"),
    "UniGenBench zh": ("prompts/unigenbench_dev.csv", "prompt_zh"),
    "WeGenBench": ("prompts/wegenbench.csv", "prompt"),
}
TYPED = {"AIGIQA-20K (typed)": ("aigiqa20k_train.csv", "prompt")}


def prompts_of(path: Path, column: str) -> list[str]:
    """The different prompts of one column."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
        return list(dict.fromkeys(row[column] for row in rows if (row[column] or "").strip()))


def print_recall(check: WordCheck) -> None:
    """Print how many of the labelled prompts are refused, by the way in which they are written."""
    labelled = yaml.safe_load(LABELLED.read_text(encoding="utf-8"))
    rules = [name for name in labelled if name not in ("pass", "beyond")]
    print(f"\n{'labelled prompts':20} {'prompts':>8} {'refused':>9} {'by their rule':>14}")
    for way in labelled[rules[0]]:
        found = [(rule, check.prompt(Asked(prompt=one), "standard")) for rule in rules for one in labelled[rule][way]]
        refused = sum(one is not None for _, one in found) / len(found)
        right = sum(one is not None and one.rule == rule for rule, one in found) / len(found)
        print(f"{way:20} {len(found):8} {refused:9.1%} {right:14.1%}")


def main() -> None:
    """Print recall, and with data the share of false alarms; exit with 1 if that is above the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with prompts/; without it only recall is measured")
    parser.add_argument("--show", action="store_true", help="also print what standard refuses")
    args = parser.parse_args()
    check = WordCheck()
    print_recall(check)
    if args.data and print_alarms(check, args.data, show=args.show) > GOAL:
        sys.exit(1)


def print_alarms(check: WordCheck, data: Path, *, show: bool) -> float:
    """Print the share of refusals for each set and level, and what a check takes; return that of `standard`."""
    classes = safety_lists()
    counts, total, seconds = Counter[str](), 0, []
    print(f"\n{'set':20} {'prompts':>8} {'standard':>9} {'strict':>8} {'one word':>9}  rules in standard")
    for name, (file, column) in (SETS | TYPED).items():
        prompts = prompts_of(data / file, column)
        alarms = []
        for prompt in prompts:
            read_literals(prompt)  # the router reads it in any case
            begin = perf_counter()
            finding = check.prompt(Asked(prompt=prompt), "standard")
            seconds.append(perf_counter() - begin)
            if finding is not None:
                alarms.append((finding.rule, prompt))
        strict = sum(check.prompt(Asked(prompt=prompt), "strict") is not None for prompt in prompts)
        naive = sum(any(classes[one].is_in(prompt) for one in ("adult", "violent")) for prompt in prompts)
        rules = ", ".join(f"{rule} {count}" for rule, count in Counter(rule for rule, _ in alarms).items())
        shares = [count / len(prompts) for count in (len(alarms), strict, naive)]
        print(f"{name:20} {len(prompts):8} {shares[0]:9.2%} {shares[1]:8.2%} {shares[2]:9.2%}  {rules}")
        if show:
            print("".join(f"    {rule}: {' '.join(prompt.split())[:300]}\n" for rule, prompt in alarms), end="")
        if name in SETS:
            counts.update(standard=len(alarms), strict=strict, naive=naive)
            total += len(prompts)
    share = counts["standard"] / total
    print(f"\nfalse alarms in standard: {counts['standard']} of {total}, {share:.2%} (goal: at most {GOAL:.1%})")
    print(f"in strict: {counts['strict'] / total:.2%}; by one word: {counts['naive'] / total:.2%}")
    p99 = sorted(seconds)[int(0.99 * len(seconds))]
    print(f"a prompt takes {1e3 * median(seconds):.2f} ms in standard, 99 of 100 at most {1e3 * p99:.2f} ms")
    return share


if __name__ == "__main__":
    main()
