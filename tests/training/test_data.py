"""Data of one's own: files, columns, checkers, the split, and `data check`."""

import json
from pathlib import Path
from random import Random

import pytest
import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

from tests.server.judges import JUDGE, JudgeServer
from tests.training.served import serving
from training import cli
from training.config.source import DataSection, open_source
from training.data.checkers import CHECKERS, Checker, checker_of
from training.data.errors import UserError
from training.data.files import read_file
from training.data.questions import TrainingQuestion, split_of

ROWS = [
    {"prompt": "What is 2 + 2?", "answer": "4", "thinking": "2+2=4", "difficulty": 1},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}], "answer": 7},
    {"prompt": "Capital of France?", "answer": "Paris", "direct": "Paris.", "difficulty": 2},
]


def shout(reference: str, answer: str) -> object:
    return {"YES": True, "half": 0.5, "nan": float("nan"), "none": None}.get(answer, 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "questions.jsonl", ROWS)


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def source(file: Path, **more: object):
    return open_source(DataSection.parse({"file": str(file), "test_share": 0, **more}))


def test_a_line_is_a_question_with_whatever_is_known_of_it(file):
    first, second, third = read_file(file, {}, {})
    assert (first.text, first.answer, first.thought, first.difficulty) == ("What is 2 + 2?", "4", "2+2=4", 1)
    assert (second.text, second.answer) == ("3 + 4?", "7")
    assert second.messages[0] == {"role": "system", "content": "Be brief."}
    assert third.direct == "Paris."
    assert third.origin == f"{file}:3"


def test_columns_may_have_other_names(tmp_path):
    file = write(tmp_path / "q.jsonl", [{"question": "1+1?", "solution": "#### 2"}])
    found = source(file, columns={"prompt": "question", "answer": "solution"}, checker="number")
    (question,) = found.draw([], 1, "train", Random(0))
    assert found.scores([(question, "It is 2."), (question, "3")]) == [1.0, 0.0]


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ("{broken", "no JSON"),
        ("[1]", "an object is needed"),
        ({"answer": "4"}, "a question needs `prompt`"),
        ({"prompt": ""}, "a question needs `prompt`"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "a question needs `prompt`"),
        ({"messages": [{"role": "user"}]}, "a question needs `prompt`"),
        ({"prompt": "x", "answer": ["4"]}, "answer must be text"),
        ({"prompt": "x", "thinking": True}, "thinking must be text"),
        ({"prompt": "x", "difficulty": -1}, "difficulty must be a whole number"),
        ({"prompt": "x", "difficulty": "hard"}, "difficulty must be a whole number"),
    ],
)
def test_a_malformed_line_is_named_by_file_and_line(tmp_path, row, wrong):
    file = write(tmp_path / "q.jsonl", [ROWS[0], row])
    with pytest.raises(UserError) as caught:
        source(file)
    assert str(caught.value).startswith(f"{file}:2: ")
    assert wrong in str(caught.value)


def test_a_column_that_is_absent_is_named_with_those_that_are_there(file):
    with pytest.raises(UserError, match=r"q\w+\.jsonl:1: there is no column 'solution'; there are: prompt, answer"):
        source(file, columns={"answer": "solution"})


def test_rows_may_be_chosen_by_what_a_column_says(tmp_path, file):
    rows = [{"prompt": f"{i}?", "answer": str(i), "reply": f"It is {i}.", "score": float(i % 2)} for i in range(6)]
    settings = {"where": {"score": 1}, "columns": {"thinking": "reply"}}
    found = source(write(tmp_path / "samples.jsonl", rows), **settings).draw([], 3, "train", Random(0))
    assert {one.answer: one.thought for one in found} == {"1": "It is 1.", "3": "It is 3.", "5": "It is 5."}
    with pytest.raises(UserError, match=r"questions.jsonl:1: there is no column 'score'"):
        source(file, where={"score": 1})


def test_each_question_is_drawn_once_before_any_is_drawn_again(file):
    found = source(file)
    drawn = [one.text for one in found.draw([], 6, "train", Random(0))]
    assert sorted(drawn[:3]) == sorted(drawn[3:]) == sorted({one.text for one in found.sides["train"]})
    assert {one.difficulty for one in found.draw([2], 3, "train", Random(0))} == {2}
    with pytest.raises(UserError, match="no train question of difficulty 9"):
        found.draw([9], 1, "train", Random(0))
    with pytest.raises(UserError, match="no test question"):
        found.draw([], 1, "test", Random(0))


def test_train_and_test_are_split_by_the_text(tmp_path):
    file = write(tmp_path / "q.jsonl", [{"prompt": f"{i}?"} for i in range(400)])
    sides = source(file, test_share=0.25).sides
    assert 0.2 < len(sides["test"]) / 400 < 0.3
    assert all(split_of(one.text, 0.25) == side for side, questions in sides.items() for one in questions)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "folder"])
def test_a_local_dataset_is_read_by_datasets(tmp_path, kind):
    from datasets import Dataset

    rows = Dataset.from_list([{"q": "1+1?", "a": "2"}, {"q": "2+2?", "a": "4"}])
    path = tmp_path / ("saved" if kind == "folder" else f"q.{kind}")
    {"jsonl": rows.to_json, "csv": rows.to_csv, "folder": rows.save_to_disk}[kind](str(path))
    section = {"dataset": str(path), "columns": {"prompt": "q", "answer": "a"}, "test_share": 0, "checker": "number"}
    found = open_source(DataSection.parse(section))
    assert {(one.text, one.answer) for one in found.sides["train"]} == {("1+1?", "2"), ("2+2?", "4")}


def test_a_dataset_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "bad.csv").mkdir()
    with pytest.raises(UserError, match=r"data\.dataset .*cannot be read"):
        open_source(DataSection.parse({"dataset": str(tmp_path / "bad.csv")}))


def test_a_gym_scores_its_own_questions_and_partly_right_is_wrong():
    found = open_source(DataSection.parse({"gym": "chain_sum", "settings": {"max_terms": 3}}))
    train, test = found.draw([], 5, "train", Random(0)), found.draw([], 5, "test", Random(0))
    assert not {one.text for one in train} & {one.text for one in test}
    question = train[0]
    assert found.scores([(question, question.answer), (question, f"{question.answer} apples"), (question, "")]) == [
        1.0,
        0.0,
        0.0,
    ]
    with pytest.raises(UserError, match="no_such_family"):
        open_source(DataSection.parse({"gym": "no_such_family"}))


@pytest.mark.parametrize(
    ("checker", "reference", "answer", "score"),
    [
        ("exact", "Paris", " Paris\n", 1),
        ("exact", "Paris", "paris", 0),
        ("number", "#### 1,200", "So it is 1200.", 1),
        ("number", "0.5", "\\boxed{1/2} or 7", 1),
        ("number", "7", "8", 0),
        ("number", "7", "none", 0),
        ({"type": "number", "tolerance": 0.1}, "3.14", "3.2", 1),
        ("choice", "B", "The answer is (B).", 1),
        ("choice", "(C)", "A, no: C", 1),
        ("choice", "C", "A", 0),
        ("math-verify", "\\frac{1}{2}", "$0.5$", 1),
        ("math-verify", "x^2+1", "$1+x^2$", 1),
        ("math-verify", "2", "$3$", 0),
        ({"type": "regex", "pattern": "answer is {answer}$"}, "a+b", "the answer is a+b", 1),
        ({"type": "regex", "pattern": "answer is {answer}$"}, "a+b", "the answer is aab", 0),
        ({"type": "regex", "pattern": "^[a-z]+$"}, "", "abc", 1),
        ({"type": "python", "function": "tests.training.test_data:shout"}, "", "YES", 1),
        ({"type": "python", "function": "tests.training.test_data:shout"}, "", "half", 0.5),
    ],
)
def test_checkers(checker, reference, answer, score):
    assert checker_of(checker).scores([(TrainingQuestion("q", answer=reference), answer)]) == [score]


@pytest.mark.parametrize(
    ("checker", "reference", "answer", "wrong"),
    [
        ("exact", "", "x", "no answer to compare with"),
        ("number", "seven", "7", "holds no number"),
        ("choice", "none of them", "A", "names no option"),
        ("math-verify", "", "1", "no answer to compare with"),
        ({"type": "regex", "pattern": "{answer}"}, "", "x", "no answer"),
        ({"type": "python", "function": "tests.training.test_data:shout"}, "", "nan", "no score"),
        ({"type": "python", "function": "tests.training.test_data:shout"}, "", "none", "no score"),
        ({"type": "python", "function": "tests.training.test_data:whisper"}, "", "", "names no Python object"),
    ],
)
def test_a_score_that_cannot_be_computed_is_an_error(checker, reference, answer, wrong):
    with pytest.raises(UserError, match=wrong):
        checker_of(checker).scores([(TrainingQuestion("q", answer=reference, origin="f:1"), answer)])


@pytest.mark.parametrize(
    ("checker", "wrong"),
    [
        ("exactly", "none of exact, number"),
        ({"type": "number", "tolerances": 1}, "tolerances"),
        ({"type": "regex", "pattern": "("}, "pattern"),
    ],
)
def test_a_checker_that_is_none_is_refused_with_the_recipe(file, checker, wrong):
    with pytest.raises(UserError, match=wrong):
        source(file, checker=checker)


def test_a_checker_is_one_line_in_the_table(file, monkeypatch):
    class LengthChecker(Checker):
        most: int = 3

        def score(self, question: TrainingQuestion, answer: str) -> float:
            return float(len(answer) <= self.most)

    monkeypatch.setitem(CHECKERS, "length", LengthChecker)
    found = source(file, checker={"type": "length", "most": 2})
    assert found.scores([(TrainingQuestion("q"), "ab"), (TrainingQuestion("q"), "abc")]) == [1.0, 0.0]


@pytest.fixture
def judge(tokenizer, monkeypatch):
    monkeypatch.delenv("REASOND_API_KEY", raising=False)
    server = JudgeServer(tokenizer)
    with serving(server.app, JUDGE) as url:
        yield url


@pytest.fixture(scope="session")
def tokenizer():
    from models.text.tokenizer import HubTokenizer

    return HubTokenizer("demo/tokenizer")


def test_a_judge_rates_the_answers_to_a_question_against_each_other(judge):
    checker = checker_of({"type": "judge", "url": judge, "model": "judge"})
    first, second = TrainingQuestion("Largest?"), TrainingQuestion("Again?")
    scores = checker.scores([(first, "1"), (first, "2"), (first, "3"), (second, "9"), (second, "4")])
    assert scores[0] < scores[1] < scores[2]
    assert scores[3] > scores[4]


def test_a_judge_holds_an_answer_against_the_reference(judge):
    checker = checker_of({"type": "judge", "url": judge, "reference": True})
    question = TrainingQuestion("q", answer="5")
    assert checker.scores([(question, "5"), (question, "6")]) == [1.0, 0.0]


def test_a_judge_that_gives_no_verdict_is_an_error_or_a_score_of_the_recipes(judge):
    with pytest.raises(UserError, match="no verdict"):
        checker_of({"type": "judge", "url": judge}).scores([(TrainingQuestion("q"), "5")])
    lone = checker_of({"type": "judge", "url": judge, "no_verdict": 0.5})
    assert lone.scores([(TrainingQuestion("q"), "5")]) == [0.5]


def test_a_judge_that_is_down_or_refuses_is_told_in_a_line(judge):
    with pytest.raises(UserError, match="cannot be reached"):
        checker_of({"type": "judge", "url": "http://127.0.0.1:9"}).scores([(TrainingQuestion("q"), "5")])
    with pytest.raises(UserError, match="refused"):
        checker_of({"type": "judge", "url": judge, "model": "nobody"}).scores([(TrainingQuestion("q"), "5")])


def test_a_reward_model_scores_the_conversation_by_its_first_logit(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained("demo/tokenizer")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    sizes |= {"head_dim": 16, "num_key_value_heads": 1}
    config = Qwen3Config(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes)
    model = Qwen3ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    question = TrainingQuestion("2 + 2?")
    found = checker_of({"type": "reward-model", "path": str(tmp_path)}).scores([(question, "4"), (question, "five")])
    for answer, score in zip(("4", "five"), found, strict=True):
        turn = [*question.messages, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(turn, return_tensors="pt", return_dict=True)["input_ids"]
        assert score == pytest.approx(model(input_ids=ids).logits[0, 0].item(), abs=1e-5)


def test_data_check_tells_counts_lengths_duplicates_and_faults(tmp_path, capsys):
    rows = [*ROWS, ROWS[0], "{broken", {"prompt": "no answer"}, {"prompt": "x", "answer": "seven"}]
    file = write(tmp_path / "q.jsonl", rows)
    assert cli.main(["data", "check", str(file), "--checker", "number", "--tokenizer", "demo/tokenizer"]) == 1
    page = capsys.readouterr().out
    assert f"{file}: 6 questions, " in page
    assert "difficulties: 0: 3, 1: 2, 2: 1" in page
    assert "duplicates: 1" in page
    assert "thinking: 2 of them, 5 / 5 / 5 tokens (10, 50, 90 %), 5 most" in page
    assert f"lines that cannot be read: 1\n  {file}:5: no JSON" in page
    assert "answers that the checker cannot read: 3" in page
    assert f"  {file}:7: 'seven' holds no number" in page


def test_data_check_of_good_data_ends_well(tmp_path, capsys):
    file = write(tmp_path / "q.jsonl", [{"q": "1+1?", "answer": "2"}])
    assert cli.main(["data", "check", str(file), "--column", "prompt=q"]) == 0
    assert "prompt: 1 of them, 1 / 1 / 1 words" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["nowhere.jsonl"], "cannot be read"),
        (["empty.jsonl"], "holds no question"),
        (["good.jsonl", "--checker", "magic"], "none of exact"),
        (["good.jsonl", "--tokenizer", "nowhere/at/all"], "cannot be loaded"),
        (["good.jsonl", "--column", "prompt"], "key=value"),
    ],
)
def test_data_check_of_what_cannot_be_checked_is_one_line(tmp_path, capsys, arguments, wrong, monkeypatch):
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "good.jsonl", ROWS)
    assert cli.main(["data", "check", str(tmp_path / arguments[0]), *arguments[1:]]) == 2
    assert wrong in capsys.readouterr().err
