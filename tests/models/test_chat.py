"""From prompts and answers to ids, with templates in the style of the families in use."""

import json

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from dpo_lib.data.formats import Conversation
from dpo_lib.models.chat import PretrainedTokenizer
from tests.models.families import FAMILIES, make_family

CLOSED = [name for name, family in FAMILIES.items() if not family.closes]


def texts(tokenizer, prompt, *answers):
    ids, rows = tokenizer.encode_answers(prompt, answers)
    assert ids == tokenizer.encode_prompt(prompt)
    return [tokenizer.decode(row, keep_specials=True) for row in (ids, *rows)]


def controls(tokenizer, ids):
    """The special tokens among ids."""
    special = {*tokenizer.backend.all_special_ids}
    return tokenizer.backend.convert_ids_to_tokens([i for i in ids if i in special])


@pytest.mark.parametrize("name", CLOSED)
def test_each_family_has_its_prompt_block_and_end(name):
    family, tokenizer = FAMILIES[name], PretrainedTokenizer(make_family(name))
    assert texts(tokenizer, "Hi.", "Yes.") == [family.prompt, family.response]
    assert tokenizer.encode_response("Yes.")[-1] == tokenizer.eos_id
    assert tokenizer.decode(tokenizer.encode_response("Yes."), True) == family.response
    assert tokenizer.decode([tokenizer.eos_id], True) == family.response.rpartition(".")[2]
    assert not tokenizer.notes


@pytest.mark.parametrize("name", CLOSED)
def test_an_answer_that_was_cut_ends_with_its_own_text(name):
    family, tokenizer = FAMILIES[name], PretrainedTokenizer(make_family(name))
    _, (cut, whole) = tokenizer.encode_answers("Hi.", ["Yes.", "Yes."], [False, True])
    assert tokenizer.decode(whole, True) == family.response
    assert tokenizer.decode(cut, True) == family.response[: family.response.rindex(".") + 1]
    assert cut == whole[: len(cut)]
    plain = PretrainedTokenizer(make_family(name), chat=False)
    assert plain.encode_answers("Hi.", ["Yes."], [False])[1] == [plain.encode_response("Yes.")[:-1]]


@pytest.mark.parametrize("name", CLOSED)
def test_prompt_and_response_are_what_the_template_writes(name):
    tokenizer = PretrainedTokenizer(make_family(name))
    ids, (response,) = tokenizer.encode_answers("Hi.", ["Yes."])
    messages = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Yes."}]
    whole = tokenizer.backend.apply_chat_template(messages, return_dict=False)
    both = ids + response
    assert both[: len(whole)] == whole or whole[: len(both)] == both or name == "no end mark"


def test_a_block_that_the_template_inserts_is_said():
    for name, words in (
        ("thinking", r"'<think>\n\n</think>\n\n' stands before each answer and is scored"),
        ("channels", "'<|channel|>final<|message|>' stands before each answer and is scored"),
        ("no generation prompt", "'<|im_start|>assistant\\n' ends the prompt, not scored"),
    ):
        assert words in PretrainedTokenizer(make_family(name)).describe()
    assert (
        PretrainedTokenizer(make_family("headers"))
        .describe()
        .endswith("template; '<|eot|>' ends each response")
    )


def test_a_thought_of_the_answers_own_takes_the_place_of_the_empty_one():
    tokenizer = PretrainedTokenizer(make_family("thinking"))
    own = "<think>\nWell.\n</think>\n\nYes."
    assert texts(tokenizer, "Hi.", own)[1] == f"{own}<|im_end|>"
    loose = "<think>Well.</think>Yes."  # the template writes it anew
    assert texts(tokenizer, "Hi.", loose)[1] == f"{own}<|im_end|>"
    assert tokenizer.notes["an answer written anew by the template"] == 1


def test_a_variable_of_the_template():
    tokenizer = PretrainedTokenizer(make_family("thinking"), template={"enable_thinking": False})
    prompt, answer = texts(tokenizer, "Hi.", "Yes.")
    assert prompt.endswith("assistant\n<think>\n\n</think>\n\n")
    assert answer == "Yes.<|im_end|>"


def test_an_opened_thought_must_be_closed():
    tokenizer = PretrainedTokenizer(make_family("reasoning"))
    with pytest.raises(ValueError, match=r"ends with <think>, which the answer does not close"):
        tokenizer.encode_answers("Hi.", ["Yes."])
    prompt = FAMILIES["reasoning"].prompt
    for answer in ("Well.\n</think>\n\nYes.", "<think>\nWell.\n</think>\n\nYes."):
        found = texts(tokenizer, "Hi.", answer)
        assert found[0] == prompt
        assert found[1].lstrip("\n") == "Well.\n</think>\n\nYes.<|eos|>"
    tokenizer = PretrainedTokenizer(make_family("reasoning"), answer_prefix="\n</think>\n\n")
    assert texts(tokenizer, "Hi.", "Yes.") == [prompt, "\n</think>\n\nYes.<|eos|>"]


@pytest.mark.parametrize("name", CLOSED)
def test_an_end_token_is_appended_only_if_it_is_missing(name):
    family, tokenizer = FAMILIES[name], PretrainedTokenizer(make_family(name))
    end = tokenizer.end
    for written in (f"Yes.{end}", f"Yes.{end}\n", f"Yes.{end}{end}", f"Yes.{family.eos}"):
        assert texts(tokenizer, "Hi.", written)[1] == family.response
    assert sum(tokenizer.notes.values()) == 4
    with pytest.raises(ValueError, match="no text beside its end token"):
        tokenizer.encode_answers("Hi.", [end])


@pytest.mark.parametrize("name", FAMILIES)
def test_control_strings_of_the_data_stay_text(name):
    family, tokenizer = FAMILIES[name], PretrainedTokenizer(make_family(name))
    before = controls(tokenizer, tokenizer.encode_prompt("Hi."))
    for mark in family.special:
        text = f"What is {mark} for, {mark}?"
        ids, rows = tokenizer.encode_answers(text, [f"Hm {mark} ends.{family.closes} So."])
        assert tokenizer.decode(ids, True) == family.prompt.replace("Hi.", text)
        assert controls(tokenizer, ids) == before
        assert f"Hm {mark} ends." in tokenizer.decode(rows[0], True)
        allowed = controls(tokenizer, tokenizer.encode_answers("Hi.", [f"a{family.closes}b"])[1][0])
        assert controls(tokenizer, rows[0]) == allowed
    assert any("kept as text" in note for note in tokenizer.notes)
    asked = PretrainedTokenizer(make_family(name), control_tokens=True)
    mark = family.special[0]
    assert controls(asked, asked.encode_prompt(f"a {mark} b")).count(mark) > before.count(mark)


@pytest.mark.parametrize("name", FAMILIES)
def test_text_beside_control_strings_has_the_ids_of_the_tokenizer(name):
    tokenizer = PretrainedTokenizer(make_family(name))
    text = "Où? 猫 <b> 12"
    ids = tokenizer.backend.encode(text, add_special_tokens=False)
    assert tokenizer._shield().encode(text, add_special_tokens=False).ids == ids
    mark = FAMILIES[name].special[0]
    rows = [tokenizer.encode_prompt(f"{text}{more}") for more in ("", mark)]
    start = next(i for i, (a, b) in enumerate(zip(*rows, strict=False)) if a != b)
    assert rows[0][:start][-len(ids) :] == ids


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_in_the_template_already_is_taken_as_it_is(name):
    family, tokenizer = FAMILIES[name], PretrainedTokenizer(make_family(name))
    expected = tokenizer.encode_prompt("Hi.")
    for text in (family.prompt, family.prompt.rstrip(), f"\n{family.prompt}"):
        assert tokenizer.is_templated(text)
        assert tokenizer.encode_prompt(text) == expected, text
    bos = tokenizer.backend.bos_token
    if bos:  # with or without it, it is there once
        assert tokenizer.encode_prompt(family.prompt.removeprefix(bos)) == expected
    assert any("taken as it is" in note for note in tokenizer.notes)
    assert not tokenizer.is_templated("Hi.")


def test_a_templated_prompt_without_its_end():
    tokenizer = PretrainedTokenizer(make_family("chatml"))
    asked = "<|im_start|>user\nHi.<|im_end|>\n"
    whole = f"{asked}<|im_start|>assistant\n"
    assert texts(tokenizer, asked, "Yes.")[0] == whole  # the generation prompt is appended
    answer = "<|im_start|>assistant\nYes.<|im_end|>\n"
    assert texts(tokenizer, asked, answer)[1] == "Yes.<|im_end|>"
    with pytest.raises(ValueError, match="chat template already, but does not end with"):
        tokenizer.encode_prompt(f"{whole}Well")
    nested = Conversation([{"role": "system", "content": "a"}, {"role": "user", "content": whole}])
    with pytest.raises(ValueError, match="a message is written in the chat template already"):
        tokenizer.encode_prompt(nested)


def test_what_a_template_refuses_is_said_in_its_words():
    users = Conversation([{"role": "user", "content": text} for text in "ab"])
    system = Conversation([{"role": r, "content": "a"} for r in ("system", "user")])
    tokenizer = PretrainedTokenizer(make_family("turns"))
    for prompt, words in ((users, "Roles must alternate"), (system, "System role not supported")):
        with pytest.raises(ValueError, match=f"the chat template refuses this: {words}") as error:
            tokenizer.encode_prompt(prompt)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if %}", "refuses this"),
        ("{{ messages[7].content.x.y }}", "refuses this"),
        ("{{ 1 / 0 }}", "refuses this: division by zero"),
        ("nothing", "leaves out the question or the answer"),
        ("{{ messages[0]['content'] }}", "leaves out the question or the answer"),
    ],
)
def test_a_broken_template_is_one_sentence(template, words):
    backend = make_family("chatml")
    backend.chat_template = template
    with pytest.raises(ValueError, match=words) as error:
        PretrainedTokenizer(backend)
    assert "\n" not in str(error.value)


def test_tools_go_to_the_template_or_are_refused():
    tool = {"type": "function", "function": {"name": "clock"}}
    prompt = Conversation([{"role": "user", "content": "What time?"}], [tool])
    backend = make_family("chatml")
    with pytest.raises(ValueError, match="no place for tools"):
        PretrainedTokenizer(backend).encode_prompt(prompt)
    backend.chat_template = "{% if tools %}<|im_start|>tools {{ tools | tojson }}{% endif %}" + (
        FAMILIES["chatml"].template
    )
    tokenizer = PretrainedTokenizer(backend)
    prompt_text, answer = texts(tokenizer, prompt, "Noon.")
    assert '"name": "clock"' in prompt_text
    assert answer == "Noon.<|im_end|>"


def test_white_space_that_the_template_leaves_out_is_left_out_of_the_ids():
    tokenizer = PretrainedTokenizer(make_family("headers"))
    assert texts(tokenizer, "Hi.", " Yes.\n")[1] == "Yes.<|eot|>"
    assert tokenizer.notes["white space around an answer left out by the template"] == 1


def test_a_pad_id_that_the_model_cannot_embed_is_replaced():
    backend = make_family("chatml", pad_token="[PAD]")
    assert PretrainedTokenizer(backend).pad_id == backend.pad_token_id
    tokenizer = PretrainedTokenizer(backend, vocab_size=backend.pad_token_id)
    if tokenizer.eos_id < backend.pad_token_id:
        assert tokenizer.pad_id == tokenizer.eos_id
    with pytest.raises(ValueError, match=r"the end token '<\|im_end\|>' has the id"):
        PretrainedTokenizer(backend, vocab_size=256)


def test_plain_prompts_have_one_bos():
    backend = make_family("instructions")
    ids = [(mark, backend.convert_tokens_to_ids(mark)) for mark in ("<s>", "</s>")]
    backend.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=ids
    )
    tokenizer = PretrainedTokenizer(backend, chat=False)
    for text in ("Hi.", "<s>Hi."):
        assert tokenizer.decode(tokenizer.encode_prompt(text), True) == "<s>Hi."
    assert controls(tokenizer, tokenizer.encode_prompt("a</s>b")) == ["<s>"]
    assert tokenizer.decode(tokenizer.encode_response(" c</s>"), True) == " c</s>"


def test_where_one_text_would_be_other_tokens():
    backend = make_family("no end mark")
    letters = backend.get_vocab()
    tokenizer = PretrainedTokenizer(backend, chat=False)
    assert tokenizer.joins([letters["Ġ"]], [letters["a"]])
    parts = json.loads(backend.backend_tokenizer.to_str())
    parts["model"]["vocab"]["Ġa"] = 999
    parts["model"]["merges"] = [["Ġ", "a"]]
    backend._tokenizer = Tokenizer.from_str(json.dumps(parts))
    tokenizer = PretrainedTokenizer(backend, chat=False)
    assert not tokenizer.joins([letters["Ġ"]], [letters["a"]])
    assert tokenizer.joins([letters["b"]], [letters["a"]])


def test_a_template_that_leaves_out_a_message_is_refused():
    turns = [("system", "Be brief."), ("user", "Hi."), ("assistant", "Aye."), ("user", "Where?")]
    prompt = Conversation([{"role": role, "content": text} for role, text in turns])
    for change, words in (
        ("messages if m['role'] != 'system'", "leaves out the system's message 'Be brief.'"),
        ("messages[-2:]", "leaves out the system's message"),
    ):
        backend = make_family("no generation prompt")
        backend.chat_template = backend.chat_template.replace("m in messages", f"m in {change}")
        tokenizer = PretrainedTokenizer(backend)
        assert tokenizer.encode_prompt("Hi.")
        with pytest.raises(ValueError, match=words):
            tokenizer.encode_prompt(prompt)


def test_the_thought_of_an_earlier_answer_may_be_left_out_and_is_counted():
    tokenizer = PretrainedTokenizer(make_family("thinking"))
    turns = [("user", "Hi."), ("assistant", "<think>\nHm.\n</think>\n\nAye."), ("user", "Where?")]
    ids = tokenizer.encode_prompt(Conversation([{"role": r, "content": c} for r, c in turns]))
    assert "Hm." not in tokenizer.decode(ids, True)
    assert "Aye." in tokenizer.decode(ids, True)
    assert tokenizer.notes["the thought of an earlier answer left out by the template"] == 1


@pytest.mark.parametrize("own", ["<think>\nHm.\n</think>\n\nYes.", "Hm.\n</think>\n\nYes."])
def test_an_opened_thought_is_closed_once(own):
    """The template closes the thought by itself; an answer with a thought does so already."""
    tokenizer = PretrainedTokenizer(make_family("thinks always"))
    response = texts(tokenizer, "Hi.", own)[1]
    assert response.lstrip("\n") == "Hm.\n</think>\n\nYes.<|im_end|>"
    backend = make_family("chatml")
    block = "{{ '<think></think>' if m['role'] == 'assistant' }}"
    backend.chat_template = backend.chat_template.replace(
        "{{ m['content']", block + "{{ m['content']"
    )
    tokenizer = PretrainedTokenizer(backend)
    assert texts(tokenizer, "Hi.", "Yes.")[1] == "<think></think>Yes.<|im_end|>"
    if own.startswith("<think>"):
        assert texts(tokenizer, "Hi.", own)[1] == f"{own}<|im_end|>"
