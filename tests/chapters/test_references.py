"""The bibliography: complete entries, and arXiv numbers that belong to their titles.

``TITLES`` is a second list, made from knowledge of the papers and checked against stored pages that
name both number and title, not by copying the bibliography. A new entry needs its row here.
"""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIBLIOGRAPHY = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")

TITLES = {
    "1706.03741": "Deep reinforcement learning from human preferences",
    "1706.03762": "Attention is all you need",
    "1706.03872": "Six challenges for neural machine translation",
    "1707.06347": "Proximal policy optimization algorithms",
    "1808.10006": "Correcting length bias in neural machine translation",
    "1904.09751": "The curious case of neural text degeneration",
    "1908.10090": "On NMT search errors and model errors: Cat got your tongue?",
    "1909.08593": "Fine-tuning language models from human preferences",
    "1910.07467": "Root mean square layer normalization",
    "2002.05202": "GLU variants improve transformer",
    "2005.14165": "Language models are few-shot learners",
    "2009.01325": "Learning to summarize from human feedback",
    "2203.02155": "Training language models to follow instructions with human feedback",
    "2104.09864": "RoFormer: Enhanced transformer with rotary position embedding",
    "2106.09685": "LoRA: Low-rank adaptation of large language models",
    "2210.10760": "Scaling laws for reward model overoptimization",
    "2305.10425": "SLiC-HF: Sequence likelihood calibration with human feedback",
    "2305.18290": "Direct preference optimization: Your language model is secretly a reward model",
    "2309.06657": "Statistical rejection sampling improves preference optimization",
    "2309.16240": "Beyond reverse KL: Generalizing direct preference optimization with diverse "
    "divergence constraints",
    "2310.12036": "A general theoretical paradigm to understand learning from human preferences",
    "2402.01306": "KTO: Model alignment as prospect theoretic optimization",
    "2402.04792": "Direct language model alignment from online AI feedback",
    "2402.13228": "Smaug: Fixing failure modes of preference optimisation with DPO-Positive",
    "2403.00409": "Provably robust DPO: Aligning language models with noisy feedback",
    "2403.07691": "ORPO: Monolithic preference optimization without reference model",
    "2403.19159": "Disentangling length from quality in direct preference optimization",
    "2404.10719": "Is DPO superior to PPO for LLM alignment? A comprehensive study",
    "2404.19733": "Iterative reasoning preference optimization",
    "2405.08448": "Understanding the performance gap between online and offline alignment "
    "algorithms",
    "2405.14734": "SimPO: Simple preference optimization with a reference-free reward",
    "2405.16436": "Provably mitigating overoptimization in RLHF: Your SFT loss is implicitly an "
    "adversarial regularizer",
    "2408.06266": "Anchored preference optimization and contrastive revisions: Addressing "
    "underspecification in alignment",
    "2410.08847": "Unintentional unalignment: Likelihood displacement in direct preference "
    "optimization",
    "2411.15124": "Tülu 3: Pushing frontiers in open language model post-training",
    "2310.16944": "Zephyr: Direct distillation of LM alignment",
    "2407.21783": "The Llama 3 herd of models",
    "2402.03300": (
        "DeepSeekMath: pushing the limits of mathematical reasoning in open language models"
    ),
    "2306.05685": "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena",
    "2404.04475": "Length-controlled AlpacaEval: A simple way to debias automatic evaluators",
    "2310.01377": "UltraFeedback: Boosting language models with scaled AI feedback",
    "2310.03708": (
        "Beyond one-preference-fits-all alignment: multi-objective direct preference optimization"
    ),
    "2502.02737": "SmolLM2: When Smol goes big - data-centric training of a small language model",
}

# Papers that docstrings of the library name and no page cites.
NAMED_IN_CODE = {
    "2402.10571": "Direct preference optimization with an offset",
    "2405.00675": "Self-play preference optimization for language model alignment",
    "2412.14516": "Cal-DPO: calibrated direct preference optimization for language model alignment",
    "2407.13399": (
        "Correcting the mythos of KL-regularization: direct alignment without "
        "overoptimization via chi-squared preference optimization"
    ),
    "2411.10442": (
        "Enhancing the reasoning ability of multimodal large language models via mixed "
        "preference optimization"
    ),
    "2406.11827": "WPO: enhancing RLHF with weighted preference optimization",
    "2402.05369": "Noise contrastive alignment of language models with explicit rewards",
    "2404.04656": "Binary classifier optimization for large language model alignment",
    "2401.08417": (
        "Contrastive preference optimization: pushing the boundaries of LLM performance "
        "in machine translation"
    ),
    "2409.06411": "Length desensitization in direct preference optimization",
    "2404.09656": "Learn your reference model for real good alignment",
    "2407.08639": "β-DPO: direct preference optimization with dynamic β",
    "2402.00856": "Towards efficient exact optimization of language model alignment",
    "2406.05882": "Distributional preference alignment of LLMs via optimal transport",
    "2406.08414": (
        "Discovering preference optimization algorithms with and for large language models"
    ),
    "2404.11999": "Token-level direct preference optimization",
    "2501.03884": "AlphaPO: reward shape matters for LLM alignment",
}

NEEDED = {
    "article": {"author", "title", "journal", "year", "volume", "pages"},
    "book": {"author", "title", "publisher", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "techreport": {"author", "title", "institution", "year"},
    "misc": {"author", "title", "year"},
}
ENTRY = re.compile(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*(\w+)\s*=\s*\{(.*)\},?\s*$", re.MULTILINE)


def entries():
    return {
        key: (kind.lower(), dict(FIELD.findall(body)))
        for kind, key, body in ENTRY.findall(BIBLIOGRAPHY)
    }


ENTRIES = entries()


def plain(title):
    """A title without braces, TeX and capitals."""
    title = re.sub(r"[{}\\$]", "", title.replace("\\&", "&").replace("--", "-"))
    return re.sub(r"\s+", " ", title).strip().lower()


def test_every_entry_is_read():
    assert len(ENTRIES) == BIBLIOGRAPHY.count("\n@")
    assert len(ENTRIES) == len(ENTRY.findall(BIBLIOGRAPHY)), "a key stands twice"


@pytest.mark.parametrize("key", ENTRIES)
def test_an_entry_is_complete(key):
    kind, fields = ENTRIES[key]
    assert fields.keys() >= NEEDED[kind], NEEDED[kind] - fields.keys()
    assert re.fullmatch(r"\d{4}", fields["year"])
    assert key.startswith(re.sub("[' ]", "", plain(fields["author"]).split(",")[0])), key
    assert fields["author"].count(" and ") == 0 or "," in fields["author"]
    if "eprint" in fields:
        assert fields["archiveprefix"] == "arXiv"
        assert re.fullmatch(r"\d{4}\.\d{4,5}", fields["eprint"])
    if kind == "misc":
        assert fields.keys() & {"eprint", "url", "doi"}, "no way to find it"
    if "url" in fields:
        assert fields["url"].startswith(("https://", "http://"))


def test_each_arxiv_number_belongs_to_its_title():
    cited = {f["eprint"]: plain(f["title"]) for _, f in ENTRIES.values() if "eprint" in f}
    assert cited == {number: plain(title) for number, title in TITLES.items()}


@pytest.mark.parametrize("key", [k for k, (_, fields) in ENTRIES.items() if "eprint" in fields])
def test_a_paper_is_not_older_than_its_number(key):
    _, fields = ENTRIES[key]
    assert 2000 + int(fields["eprint"][:2]) <= int(fields["year"])


def texts():
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("book/**/*.ipynb")]:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            yield path.name, "".join(cell["source"])
    for path in ROOT.glob("book/**/*.md"):
        yield path.name, path.read_text(encoding="utf-8")


def test_arxiv_numbers_outside_the_bibliography_are_in_the_list():
    """Docstrings and pages name papers by number, too."""
    sources = [*texts(), *((p.name, p.read_text("utf-8")) for p in ROOT.glob("dpo_lib/**/*.py"))]
    unknown = {
        (name, number)
        for name, text in sources
        for number in re.findall(r"(?:arXiv:|arxiv\.org/abs/)(\d{4}\.\d{4,5})", text)
        if number not in TITLES and number not in NAMED_IN_CODE
    }
    assert unknown == set()


def test_every_citation_has_an_entry():
    cited = {
        (name, key.strip())
        for name, text in texts()
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    assert cited
    assert {(name, key) for name, key in cited if key not in ENTRIES} == set()
