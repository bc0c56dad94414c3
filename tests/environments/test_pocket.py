"""Search over pocket documents, the calculator, SQL over a table; and the names that options take."""

import math
from itertools import chain

import pytest
import torch

from qredit import tasks
from qredit.environments.budget import EpisodeBudget
from qredit.environments.calls import HERMES
from qredit.environments.episode import EpisodePlayer, alike
from qredit.environments.names import adapt_task, find_environment, find_tools
from qredit.environments.observation import ObservationFormat
from qredit.environments.pocket import PocketSearch, calculator, sql
from qredit.environments.pocket.search import find_query
from qredit.environments.retrieval import find_documents, split_words
from qredit.environments.tool_environment import ToolSet
from qredit.environments.tools import make_tool, make_tools
from qredit.rollouts.collate import collate
from qredit.rollouts.sampling_params import TokenBudget
from qredit.rollouts.trajectory import EndReason, Role
from qredit.samplers.answers import as_row
from qredit.tasks.pocket.search import DOCUMENTS, make_search_task
from qredit.utils import extras
from qredit.utils.errors import QreditError
from tests.support import tiny
from tests.support.episodes import ScriptedSampler, token_format

HOPS = {"pocket-hotpot": 2, "pocket-musique": 3}


@pytest.fixture(scope="module", params=HOPS)
def searching(request):
    """A task of which the question alone is asked, with some of its examples."""
    task = adapt_task("pocket-search", tasks.get(request.param))
    return task, task.load(None, "validation", "cold", limit=16)


def make_reply(examples, tokens, find_next):
    """Says what `find_next` makes of what was read, for the example whose question stands in the text."""
    questions = {example.prompt: example for example in examples}

    def reply(text, number):
        if not text.endswith(tokens.format.closing):
            return tokens.format.closing
        (example,) = (one for question, one in questions.items() if question in text)
        behind = text.split(example.prompt, 1)[1]
        return f"{find_next(example, behind)}<end>"

    return reply


def follow(example, behind):
    """The expert: asks for the last name that it was led to, and answers with the one that it was asked for."""
    name = name_of(example.prompt)
    for _ in range(HOPS[task_of(example)]):
        fact = next(one for one in example.columns["documents"] if one.startswith(f"{name} "))
        if fact not in behind:
            return f"search({name})"
        name = object_of(fact)
    return name


def task_of(example):
    return example.id.rsplit("-", 1)[0]


def object_of(fact):
    return fact.rstrip(".").rsplit(" ", 1)[1]


def name_of(question):
    (name,) = (word for word in question.removesuffix("?").split()[1:] if word[0].isupper())
    return name


def play(examples, find_next, turns=4):
    tokens = token_format(tiny.tokenizer())
    budget = EpisodeBudget(TokenBudget(20, 20), turns, observation=120)
    player = EpisodePlayer(alike(PocketSearch), tokens, budget, ObservationFormat(tokens, chat=False))
    sampler = ScriptedSampler(tokens.tokenizer, make_reply(examples, tokens, find_next))
    prompts = [tokens.prompt_ids(example.prompt) for example in examples]
    found = player.play(sampler, prompts, list(map(as_row, examples)), stop_tokens=[1], seed=0)
    return tokens, prompts, found


def apart(examples):
    """Examples of different questions, by which the script knows them."""
    return [*{example.prompt: example for example in examples}.values()][:6]


def test_an_expert_searches_hop_by_hop_and_is_right(searching):
    task, examples = searching
    examples = apart(examples)
    tokens, prompts, found = play(examples, follow)
    hops = HOPS[task.name]
    for prompt, one, example in zip(prompts, found, examples, strict=True):
        assert tokens.response_text(one.answer_ids) == example.answer
        assert (one.end, one.episode_reward, len(one.turns)) == (EndReason.ANSWER, 1.0, hops + 1)
        assert [turn.reward for turn in one.turns] == [0.0] * hops + [1.0]
        assert [dict(turn.counts) for turn in one.turns] == [{"searches": 1}] * hops + [{}]
        assert len({turn.state_key for turn in one.turns}) == hops + 1
        assert list(one.prompt) == prompt, "reset says nothing"


def test_ids_and_spans_are_those_of_other_environments(searching):
    _, examples = searching
    tokens, _, found = play(apart(examples), follow)
    batch = collate(found, ("response",), 0, 0, torch.device("cpu")).batch
    for row, one in enumerate(found):
        assert batch.ids[row][batch.mask[row]].tolist() == list(chain(*(part.ids for part in one.segments)))
        seen = [part for part in one.segments if part.role == Role.OBSERVATION]
        assert batch.ids[row][batch.observation[row]].tolist() == list(chain(*(part.ids for part in seen)))
        assert not (batch.trainable & batch.observation)[row].any()
        texts = [tokens.tokenizer.decode(list(part.ids)) for part in seen]
        documents = apart(examples)[row].columns["documents"]
        assert all(sum(document in text for document in documents) >= 1 for text in texts)


def test_what_is_not_known_is_said_and_a_wrong_answer_earns_0(searching):
    _, examples = searching
    words = iter(["search(Xyz)", "Xyz?", "Xyz"])
    tokens, _, (found,) = play(examples[:1], lambda example, behind: next(words))
    texts = [tokens.tokenizer.decode(list(one.ids)) for one in found.segments if one.role == Role.OBSERVATION]
    assert all("Nothing is found for 'Xyz'." in text for text in texts)
    assert found.turns[0].counts == {"searches": 1, "empty_searches": 1}
    assert [turn.reward for turn in found.turns] == [0.0, 0.0, 0.0]
    assert len({turn.state_key for turn in found.turns}) == 1, "nothing was learned"


def test_one_that_searches_to_the_end_earns_0(searching):
    _, examples = searching
    _, _, (found,) = play(examples[:1], lambda example, behind: "search(Tilo)", turns=2)
    assert (found.end, found.episode_reward) == (EndReason.BUDGET, 0.0)


@pytest.mark.parametrize(
    ("action", "query"),
    [
        ("search(Tilo)", "Tilo"),
        (' Search( "Tilo, Kemo" ).\n', "Tilo, Kemo"),
        ("Where does Tilo live?", "Where does Tilo live"),
        ("search()", ""),
        ("Kemo", None),
        ("research(Tilo) it", None),
        ("", None),
    ],
)
def test_an_action_is_a_search_or_an_answer(action, query):
    assert find_query(action) == query


def test_a_row_without_documents_is_refused():
    with pytest.raises(QreditError, match="no column documents"):
        PocketSearch().reset({"prompt": "Which?", "answer": "Kemo"}, 0)


# --- documents


def test_documents_hold_the_facts_and_contradict_none(searching):
    task, examples = searching
    plain, first = {one.id: one for one in tasks.get(task.name).load(None, "validation", "cold")}, []
    for one in examples:
        documents = one.columns["documents"]
        *facts, question = plain[one.id].prompt.split("\n")
        assert one.prompt == question
        assert (one.answer, one.id) == (plain[one.id].answer, plain[one.id].id)
        assert set(facts) < set(documents)
        assert len(documents) == len({document.split()[0] for document in documents}) == DOCUMENTS
        assert follow(one, " ".join(documents)) == one.answer
        first.append(documents[: len(facts)] == facts)
    assert not any(first), "their order tells nothing"


def test_documents_are_a_function_of_the_example(searching):
    task, examples = searching
    made = make_search_task(tasks.get(task.name)).load(None, "validation", "warm", limit=16)
    assert [one.columns for one in made] == [one.columns for one in examples]
    for warm, cold in zip(made, examples, strict=True):
        assert warm.prompt.startswith("Search for facts")
        assert warm.prompt.endswith(f"\n{cold.prompt}")


def test_retrieval_is_bm25_with_ties_by_place():
    documents = ["Tilo lives in Kemo.", "Kemo lies in Bafi.", "Zuba lives in Kemo.", "Nothing."]
    assert find_documents("kemo", documents, 2) == [0, 1]
    assert find_documents("Who lives there?", documents, 9) == [0, 2]
    assert find_documents("Where does Zuba live in?", documents, 1) == [2]
    assert find_documents("", documents, 3) == find_documents("Xyz", documents, 3) == []
    assert find_documents("Zuba in", documents, 3) == rank(["zuba", "in"], documents)


def rank(query, documents):
    """Lucene's BM25 (k1 1.5, b 0.75) written out."""
    words = list(map(split_words, documents))
    mean = sum(map(len, words)) / len(words)

    def score(own):
        total = 0.0
        for word in query:
            holding = sum(word in one for one in words)
            idf = math.log(1 + (len(words) - holding + 0.5) / (holding + 0.5))
            count = own.count(word)
            total += idf * count / (count + 1.5 * (0.25 + 0.75 * len(own) / mean))
        return total

    scores = list(map(score, words))
    return [place for place in sorted(range(len(words)), key=lambda place: -scores[place])[:3] if scores[place]]


# --- tools


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 + 30", "42"),
        ("(12.5 - 30) / 2", "-8.75"),
        ("0.1 + 0.2", "0.3"),
        ("1,250 * 2", "2500"),
        ("-2 ** 2", "-4"),
        ("2 ** -2", "0.25"),
        ("10 / 3", "3.333333333"),
    ],
)
def test_the_calculator_calculates(expression, value):
    assert calculator(expression) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("__import__('os').getcwd()", "no arithmetic"),
        ("(lambda: 1)()", "no arithmetic"),
        ("True + 1", "no arithmetic"),
        ("'a' * 9", "no arithmetic"),
        ("1 if 2 else 3", "no arithmetic"),
        ("1 << 9", "no arithmetic"),
        ("2j", "no arithmetic"),
        ("", "no arithmetic"),
        ("1 / (2 - 2)", "division by zero"),
        ("9 ** 9 ** 9", "exponent must be a whole number"),
        ("4 ** 0.5", "exponent must be a whole number"),
        ("10 ** 99", "more than 30 digits"),
        ("(" * 201, "200 characters at most"),
    ],
)
def test_the_calculator_refuses_all_else(expression, message):
    with pytest.raises(ValueError, match=message):
        calculator(expression)


ROW = {"table": [["", "2001", "2002"], ["Tilo", "12", "45"], ["Kemo", "30", "31"]]}


def test_sql_reads_the_table_of_the_row():
    assert sql('SELECT item, "2002" - "2001" FROM data ORDER BY 2', example=ROW) == "Kemo | 1\nTilo | 33"
    assert sql("SELECT item FROM data WHERE item = 'x'", example=ROW) == "no rows"
    assert sql("SELECT a.item FROM data a, data b, data c, data d, data e", example=ROW).endswith("Kemo\n…")
    with pytest.raises(ValueError, match="no column table"):
        sql("SELECT 1", example={})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("DELETE FROM data", "not authorized"),
        ("INSERT INTO data VALUES (1, 2, 3)", "not authorized"),
        ("ATTACH DATABASE 'FILE' AS other", "not authorized"),
        ("VACUUM INTO 'FILE'", "VACUUM|not authorized"),
        ("PRAGMA writable_schema = 1", "not authorized"),
        ("SELECT load_extension('FILE')", "not authorized"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT zeroblob(1000000000)", "too big"),
        ("SELECT cost FROM data", "no such column"),
        ("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c", "interrupted"),
    ],
)
def test_sql_only_reads_and_ends_in_time(query, message, tmp_path, monkeypatch):
    monkeypatch.setattr("qredit.environments.pocket.table.SECONDS", 0.1)
    file = tmp_path / "other.db"
    with pytest.raises(Exception, match=message):
        sql(query.replace("FILE", str(file)), example=ROW)
    assert not file.exists()


def test_a_tool_may_read_the_row_which_the_model_does_not_see():
    tool = make_tool(sql)
    assert (tool.reads_example, list(tool.parameters["properties"])) == (True, ["query"])
    assert tool.parameters["required"] == ["query"]
    assert "parameter 'example'" in (tool.find_fault({"query": "SELECT 1", "example": {}}) or "")
    tools = ToolSet(make_tools([sql, calculator]), HERMES, seconds=5)
    asked = tasks.get("pocket-finqa").load(None, "validation", "cold", limit=2)
    try:
        for example in asked:
            environment = tools.make()
            environment.reset(as_row(example), 0)
            item, *numbers = example.columns["table"][1]
            year = example.columns["table"][0][1]
            call = f"""SELECT \\"{year}\\" FROM data WHERE item = '{item}'"""
            step = environment.step(f'<tool_call>{{"name": "sql", "arguments": {{"query": "{call}"}}}}</tool_call>')
            assert [one["content"] for one in step.observation] == numbers[:1]
            step = environment.step(
                f'<tool_call>{{"name": "calculator", "arguments": {{"expression": "{numbers[0]} - 1"}}}}</tool_call>'
            )
            assert [one["content"] for one in step.observation] == [str(int(numbers[0]) - 1)]
    finally:
        tools.worker.close()


def test_a_parameter_that_is_called_example_stays_the_models():
    def show(example: str) -> str:
        """Show it.

        Args:
            example: what is shown.
        """
        return example

    tool = make_tool(show)
    assert (tool.reads_example, list(tool.parameters["properties"])) == (False, ["example"])


# --- names


def test_names_and_paths_are_found(monkeypatch):
    assert find_environment("pocket-search") is PocketSearch
    assert find_environment("qredit.environments.pocket:PocketSearch") is PocketSearch
    assert find_tools("calculator, qredit.environments.pocket:sql") == [calculator, sql]
    for find, name, message in (
        (find_environment, "pocket-serch", "unknown environment 'pocket-serch'; did you mean 'pocket-search'"),
        (find_tools, "calculater", "did you mean 'calculator'.* one of your own is written package.module:name"),
    ):
        with pytest.raises(QreditError, match=message):
            find(name)
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(QreditError, match=r"environment pocket-search needs bm25s.* pip install 'qredit\[tools\]'"):
        find_environment("pocket-search")
    assert find_tools("calculator") == [calculator]
