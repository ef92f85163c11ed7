#!/usr/bin/env python3
"""Checks the documentation: links and anchors, what each page begins with, the tables of flags, values and servers, YAML, that
each file of the source has its place in the architecture, and that each message of the source is explained.

What is a whole manifest is left in target/docs/objects.json for tests/chart/types.rs, which reads it with Kubernetes' types."""

import json
import pathlib
import re
import sys

import markdown_it
import tree_sitter
import tree_sitter_rust
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# What is recorded of servers on SIGTERM, as the tables that docs/servers.md has.
sys.path.insert(0, str(ROOT / "tests/servers"))
import table as servers  # noqa: E402
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/gracekeeper/README.md")]
DOCS = sorted((ROOT / "docs").glob("*.md"))
LONGEST_README = 200
HEAD = "**Who needs this page:** "

MARKDOWN = markdown_it.MarkdownIt("commonmark").enable("table")
RUST = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))

TROUBLESHOOTING = "docs/troubleshooting.md"
# Where the messages of a file are explained, by how its name begins; the longest beginning counts. A command that has a page
# of its own, and says things that no other part says, gets its line here.
EXPLAINED = {"src/": TROUBLESHOOTING}
# Files whose sentences are no messages, and where they are checked or explained instead.
OTHER_FILES = {
    "src/inflight/presets.rs": "the presets' table of docs/sources.md, compared by a test beside them",
    "src/metrics.rs": "help texts of the metrics",
    "src/check/rules/": "each rule's texts are docs/rules.md, compared by a test; its findings are on the same page by their id",
    "src/rehearse/advice.rs": "lines of a report; docs/rehearse.md says which there are",
    "src/rehearse/advice/": "lines of a report; docs/rehearse.md says which there are",
    "src/rehearse/cluster/rollout.rs": "the same",
    "src/rehearse/verdict.rs": "the same",
    "src/rehearse/report/": "the same",
    "src/check/explain.rs": "the head of docs/rules.md",
    "src/inject/warnings.rs": "docs/injection.md, compared with the policy's by tests/inject",
}
# Sentences that are no messages.
NO_MESSAGES = {
    "{}\\nEvery flag is also an environment variable: --min-wait is GRACEKEEPER_MIN_WAIT. Where a flag may be repeated, the "
    "variable has one value a line. Durations are written 5s, 1m30s, 250ms.": "the help's last lines",
    "text/plain; version=0.0.4; charset=utf-8": "a media type",
    "--url={} {} {}": "a flag",
    "{SERVICE} in ({})": "a label selector",
    "The file cannot be read": "the name of a rule in SARIF",
    "fixed {} in {} ({})": "what check did",
    "{}, {}, {} in {}": "check's sum of what it found",
    "; {} could not be read": "its end",
    "; gracekeeper check --explain {} says why": "its end",
    r"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0": "what a client of HTTP/2 sends first",
    "Max open files": "a line of /proc/PID/limits",
    "{selector} or vector(0)": "a part of an expression, which a message shows",
    "sum({selector} or vector(0))": "a part of an expression, which a message shows",
}
# In these a literal of any length is a message, and in those none is.
LOUD = {"warn", "error"}
QUIET = {"info", "debug", "trace", "panic", "unreachable", "assert", "assert_eq", "assert_ne", "debug_assert", "concat"}
# Functions that name the variants of a type, by the file's name and the type's. Each name has a row of its own.
NAMED = [("drain", "Outcome", "name", 7), ("events", "Reason", "name", 9), ("inflight", "Error", "kind", 12)]

problems = []


def check(what, found):
    """Notes what was found to be wrong."""
    problems.extend(f"{what}: {wrong}" for wrong in found)


def words(tokens):
    """The plain text of a heading or a link."""
    return "".join(t.content for t in tokens or [] if t.type in ("text", "code_inline"))


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    tokens, seen = MARKDOWN.parse(text), {}
    for before, token in zip(tokens, tokens[1:]):
        if before.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", words(token.children).strip().lower()).replace(" ", "-")
            n = seen[slug] = seen.get(slug, -1) + 1
            yield f"{slug}-{n}" if n else slug


def links(text):
    """Where a page's links and pictures lead."""
    for token in MARKDOWN.parse(text):
        for child in token.children or []:
            if child.type in ("link_open", "image"):
                yield child.attrs.get("href") or child.attrs.get("src")


def broken(page, text):
    """The relative links of a page that lead nowhere."""
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if path and not (target.exists() and target.is_relative_to(ROOT)):
            yield f"{link} leads nowhere"
        elif anchor and anchor not in anchors(text if target == page else target.read_text()):
            yield f"{link}: no such heading"


def beginning(text):
    """Each page begins with its title and says who needs it."""
    title, _, rest = text.partition("\n\n")
    if not title.startswith("# ") or not rest.startswith(HEAD):
        yield f"it does not begin with a title and {HEAD!r}"


def blocks(text, *languages):
    """The fenced blocks of these languages."""
    return [t.content for t in MARKDOWN.parse(text) if t.type == "fence" and t.info.split()[:1] and t.info.split()[0] in languages]


def manifests(text):
    """The documents of a page's YAML that are whole manifests. A chart's template is no YAML yet."""
    for block in blocks(text, "yaml"):
        if "{{" not in block:
            yield from (d for d in yaml.safe_load_all(block) if isinstance(d, dict) and {"apiVersion", "kind"} <= d.keys())


def rows(text, head):
    """The cells of the tables whose first column has this head."""
    inside = False
    for line in text.splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            inside = False
        elif cells[0] == head:
            inside = True
        elif inside and not set(cells[0]) <= set("- "):
            yield cells


def flags(page, help_text, values):
    """Every flag with its variable, its default and its chart value, and nothing else; and every chart value."""
    text = re.sub(r"\s*\n\s+", " ", help_text)
    there = {}
    for part in re.split(r"(?= --[a-z])", text)[1:]:
        name = re.match(r" --([a-z-]+)", part)[1]
        default = re.search(r"\[default: (.+?)\]( |\n|$)", part)
        if name != "help":
            there.setdefault(name, default[1] if default else None)
    shown = {re.match(r"`--([a-z-]+)", row[0])[1]: row for row in rows(page, "flag")}
    yield from (f"--{name} has no row" for name in there.keys() - shown.keys())
    yield from (f"--{name} is not a flag" for name in shown.keys() - there.keys())
    named = set()
    for name, (_, variable, value, default, *_) in shown.items():
        if variable != f"`GRACEKEEPER_{name.upper().replace('-', '_')}`":
            yield f"--{name} is not {variable}"
        if there.get(name) and default.strip("`") != there[name]:
            yield f"--{name} has the default {there[name]}, not {default}"
        named |= set(re.findall(r"`([A-Za-z.]+)`", value))
    for row in rows(page, "chart value"):
        named |= set(re.findall(r"`([A-Za-z.]+)`", row[0]))
    yield from (f"the chart has no value {value}" for value in named - values)
    yield from (f"the chart's value {value} is not there" for value in values - named)


def chart_values(tree, path=""):
    """The names of the chart's values, with dots."""
    for key, value in tree.items():
        if isinstance(value, dict) and value and key not in ("labels", "requests", "limits"):
            yield from chart_values(value, f"{path}{key}.")
        else:
            yield path + key


def literals(node, macros=()):
    """The string literals below a node, without attributes and tests, each with the macros around it."""
    before = [None, None]
    for child in node.children:
        skipped = child.type == "attribute_item" or of_tests(before[1])
        inner = macros
        if child.type == "macro_invocation":
            inner = macros + (child.child_by_field_name("macro").text.decode().rpartition(":")[2],)
        elif child.type == "token_tree" and before[1] is not None and before[1].type == "!" and before[0].type == "identifier":
            inner = macros + (before[0].text.decode(),)
        if child.type in ("string_literal", "raw_string_literal") and not skipped:
            yield child, macros
        elif not skipped:
            yield from literals(child, inner)
        if "comment" not in child.type:
            before = [before[1], child]


def of_tests(before):
    """Whether an item is compiled for tests alone."""
    return before is not None and before.type == "attribute_item" and b"cfg(test)" in before.text


def test_files(file):
    """The files of the modules that a file names for tests alone."""
    items = RUST.parse(file.read_bytes()).root_node.children
    for before, item in zip(items, items[1:]):
        if item.type == "mod_item" and item.child_by_field_name("body") is None and of_tests(before):
            folder = file.parent if file.stem in ("lib", "main", "mod") else file.with_suffix("")
            module = folder / item.child_by_field_name("name").text.decode()
            yield module.with_suffix(".rs")
            yield from module.rglob("*.rs")


def template(literal):
    """The text of a literal as the source has it, without what only continues a line."""
    text = re.sub(r"\\\n\s*", "", literal.text.decode())
    text = re.fullmatch(r'[bc]?r?#*"(.*)"#*', text, re.S)[1]
    return text.replace(r"\"", '"')


def messages(source):
    """What a file may say to a user: sentences, and whatever it warns of. With their lines."""
    for literal, macros in literals(RUST.parse(source).root_node):
        text = template(literal)
        loud = LOUD & set(macros)
        if not QUIET & set(macros) and (loud or len(text.split()) >= 3):
            yield literal.start_point[0] + 1, text


def pattern(text):
    """What a page has to have for a message: its fixed parts in one line and one code span, anything between them."""
    fixed = re.split(r"\{[^{}]*\}", re.sub(r"(\\n)+$|^(\\n)+", "", text).strip())
    return re.compile(r"[^`\n]*?".join(re.escape(part) for part in fixed))


def explained_in(name):
    """The page that explains the messages of a file."""
    return EXPLAINED[max((start for start in EXPLAINED if name.startswith(start)), key=len)]


def unexplained(source, text, page=TROUBLESHOOTING):
    """The messages of a file that a page lacks."""
    text = text.replace(r"\|", "|")
    for line, message in messages(source):
        if message not in NO_MESSAGES and not pattern(message).search(text):
            yield f"line {line}: {message!r} is not in {page}"


def names(source, kind, function):
    """What a function of a type calls its variants."""
    def impls(node):
        for child in node.children:
            if child.type == "impl_item" and child.child_by_field_name("type").text.decode() == kind:
                yield from child.child_by_field_name("body").children
            else:
                yield from impls(child)
    for item in impls(RUST.parse(source).root_node):
        if item.type == "function_item" and item.child_by_field_name("name").text.decode() == function:
            yield from (template(literal) for literal, _ in literals(item))


def unnamed(there, page):
    """The names without a row of their own."""
    return [f"`{name}` has no row in {TROUBLESHOOTING}" for name in there if not re.search(rf"^\| `{re.escape(name)}`", page, re.M)]


def self_test():
    """Every check finds what is wrong, or it would be worth nothing."""
    page = ROOT / "docs/x.md"
    wrong = "# A `b` c!\n\n[x](#a-b-c) [x](#nothing) [x](nowhere.md) [x](../README.md#nothing) [x](../../../etc) [x](https://example.com)\n"
    found = [w.split()[0].rstrip(":") for w in broken(page, wrong)]
    assert found == ["#nothing", "nowhere.md", "../README.md#nothing", "../../../etc"], found
    assert list(beginning("# Title\n\nText\n")) and not list(beginning(f"# Title\n\n{HEAD}you.\n"))
    text = "```yaml\napiVersion: v1\nkind: Pod\n---\na: 1\n```\n```yaml\n{{ x }}\n```\n"
    assert [d["kind"] for d in manifests(text)] == ["Pod"]
    listed = "| flag | environment | chart value | default | meaning |\n| --- | --- | --- | --- | --- |\n" \
        "| `--one N` | `GRACEKEEPER_ONE` | `one` | `1` | |\n| `--two` | `GRACEKEEPER_TOW` | `tow` | | |\n"
    shown = "Options:\n  -h, --help  Help\n      --one <N>  One\n          [default: 2]\n      --three  Three\n"
    assert len(list(flags(listed, shown, {"one", "two"}))) == 6, list(flags(listed, shown, {"one", "two"}))
    lines = [line for lines in servers.lines_of(servers.recorded()) for line in lines]
    assert lines and not list(servers.missing("\n".join(lines)))
    assert len(list(servers.missing("\n".join([*lines[:2], "| a server that is not recorded |", *lines[3:]])))) == 2
    source = b'''
        #[arg(help = "an attribute is no message")]
        fn f() { warn!(x, "odd: {e}"); info!("this is no message"); Err(format!("it has {n} of \\
                 {m:?} \\"parts\\"")) }
        fn g() { tokio::select! { _ = x => { debug!("nor is this one") } _ = y => { warn!("loud") } } }
        #[cfg(test)]
        mod tests { fn f() { warn!("of a test") } }'''
    assert [m for _, m in messages(source)] == ["odd: {e}", 'it has {n} of {m:?} "parts"', "loud"], list(messages(source))
    good = 'x `odd: ERROR` y `it has 3 of "x" "parts"` `loud`'
    assert not list(unexplained(source, good))
    assert len(list(unexplained(source, good.replace("odd", "even")))) == 1
    assert len(list(unexplained(source, good.replace('3 of', '3` of')))) == 1
    assert len(list(unexplained(source, ""))) == 3
    source = b'impl Other { fn name() { "c" } } impl Kind { fn name(self) { match self { A => "a", B => "b" } } fn x() { "d" } }'
    assert list(names(source, "Kind", "name")) == ["a", "b"]
    assert unnamed(["a", "b"], "| `a` | x |\nx | `b` |\n") == [f"`b` has no row in {TROUBLESHOOTING}"]


def main():
    self_test()
    texts = {page: page.read_text() for page in PAGES + DOCS}
    readme, troubleshooting = texts[ROOT / "README.md"], texts[ROOT / TROUBLESHOOTING]
    objects = []
    for page, text in texts.items():
        name = page.relative_to(ROOT)
        check(name, broken(page, text))
        try:
            objects += manifests(text)
        except yaml.YAMLError as e:
            check(name, [f"a block of YAML does not parse: {e}"])
    for page in DOCS:
        check(page.relative_to(ROOT), beginning(texts[page]))
        if f"docs/{page.name}" not in {link.partition("#")[0] for link in links(readme)}:
            check("README.md", [f"no link to docs/{page.name}"])
    if (lines := len(readme.splitlines())) > LONGEST_README:
        check("README.md", [f"{lines} lines, and {LONGEST_README} at most"])
    values = set(chart_values(yaml.safe_load((ROOT / "charts/gracekeeper/values.yaml").read_text())))
    check("docs/servers.md", servers.missing(texts[ROOT / "docs/servers.md"]))
    check("tests/servers", (line for seen in servers.recorded().values() for line in servers.contradictions(seen)))
    help_text = (ROOT / "tests/binary/help.txt").read_text()
    check("docs/configuration.md", flags(texts[ROOT / "docs/configuration.md"], help_text, values))

    said, placed = set(), set(links(texts[ROOT / "docs/architecture.md"]))
    sources = sorted((ROOT / "src").rglob("*.rs"))
    tests = {file for source in sources for file in test_files(source)}
    for file in sources:
        name, source = str(file.relative_to(ROOT)), file.read_bytes()
        if file in tests:
            continue
        if f"../{name}" not in placed:
            check("docs/architecture.md", [f"no link to {name}"])
        if name in OTHER_FILES or f"{file.parent.relative_to(ROOT)}/" in OTHER_FILES:
            continue
        said |= {message for _, message in messages(source)}
        page = explained_in(name)
        check(name, unexplained(source, texts[ROOT / page], page))
    check("tests/docs/docs.py", [f"no such message any more: {text!r}" for text in NO_MESSAGES.keys() - said])
    check("tests/docs/docs.py", [f"no such file any more: {name}" for name in OTHER_FILES if not (ROOT / name).exists()])
    for part, kind, function, least in NAMED:
        files = [f for f in sources if part in str(f.relative_to(ROOT))]
        there = {name for file in files for name in names(file.read_bytes(), kind, function)}
        if len(there) < least:
            check("tests/docs/docs.py", [f"only {len(there)} names of {part}'s {kind}::{function}: have they moved?"])
        check(f"{kind} of {part}", unnamed(sorted(there), troubleshooting))

    folder = ROOT / "target/docs"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "objects.json").write_text(json.dumps(objects, indent=1))
    if problems:
        sys.exit("\n".join(problems) + f"\n{len(problems)} problems in the documentation")
    print(f"docs: {len(texts)} pages, {len(objects)} manifests and {len(said)} messages are in order")


main()
