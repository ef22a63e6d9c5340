"""Technical accuracy: right facts in sentences pass; denied, contradicted, or merely listed ones do not."""

import pytest

from harness.cases import Case, Fact, load_cases
from harness.engines import Reply
from harness.facts import asserts, contradicted, technical
from harness.persona import personality

DOCKER = Case(id="docker", kind="technical", category="containers", prompt="docker container ile sanal makine farkı ne", words=(20, 150),
              complexity="medium", contradict=(r"container\w* kendi kernel",), facts=(
                  Fact(name="shared kernel", any=(r"kernel\w* paylas\w*", r"cekirde\w* paylas\w*"), critical=True),
                  Fact(name="isolated", any=("izole", "izolasyon")),
                  Fact(name="light", any=("hafif", r"az yer kapla\w*")),
                  Fact(name="vm has own os", any=(r"(kendi|ayri|tam) (bir )?isletim sistemi",))))
GOOD = ("Kanka container'lar host ile aynı kernel'ı paylaşır, o yüzden çok hafif olurlar. Sanal makine ise kendi işletim sistemini taşır. "
        "Container içindeki süreç yine de izole çalışır.")


def test_a_right_answer_passes() -> None:
    outcome = technical(DOCKER, Reply(GOOD))
    assert (outcome.score, outcome.passed, outcome.detail) == (1.0, True, {"facts": 1.0})


def test_three_of_four_facts_are_enough() -> None:
    outcome = technical(DOCKER, Reply(GOOD.replace("çok hafif", "çok hızlı")))
    assert (outcome.passed, outcome.detail["facts"]) == (True, 0.75)


def test_a_missing_critical_fact_fails_whatever_else_is_right() -> None:
    outcome = technical(DOCKER, Reply(GOOD.replace("kernel'ı paylaşır", "makinede çalışır")))
    assert "critical fact missing: shared kernel" in outcome.reasons


def test_a_denied_fact_is_not_stated() -> None:
    assert technical(DOCKER, Reply(GOOD.replace("paylaşır", "paylaşmaz"))).passed is False
    assert technical(DOCKER, Reply(GOOD.replace("çok hafif olurlar", "hafif değildir").replace("izole çalışır", "çalışır"))).detail["facts"] == 0.5


def test_a_contradiction_fails_a_complete_answer() -> None:
    outcome = technical(DOCKER, Reply(GOOD + " Container kendi kernel'ını getirir."))
    assert outcome.reasons[-1].startswith("contradicts")


def test_saying_that_the_wrong_thing_is_wrong_is_no_contradiction() -> None:
    assert technical(DOCKER, Reply(GOOD + " Container kendi kernel'ını getirmez.")).passed


@pytest.mark.parametrize(("said", "wrong"), [
    ("container silinse de pgdata kalir.", False), ("boylece container silinse de veri kalir.", False),
    ("volume kullanirsan container silinse bile data durur.", False), ("container'i silsen de veriler kalir.", True),
    ("container silince data kaybolmaz.", True),
])
def test_what_a_volume_keeps_is_no_contradiction(said: str, wrong: bool) -> None:
    case = next(case for case in load_cases("technical") if case.id == "docker-image-container")
    assert (contradicted(case, [said]) is not None) is wrong


@pytest.mark.parametrize("stuffed", [
    "Kernel paylaşımı, kernel paylaşan container, izole, izolasyon, hafif, kendi işletim sistemi, ayrı işletim sistemi, docker, image, "
    "registry, katman, süreç, namespace, cgroup, sanallaştırma, hypervisor.",
    "kernel paylaşan ve izole ve hafif ve kendi işletim sistemi ve container ve docker ve image ve katman ve süreç ve registry ve volume "
    "ve ağ ve namespace ve cgroup",
])
def test_keywords_without_sentences_fail(stuffed: str) -> None:
    assert not technical(DOCKER, Reply(stuffed)).passed


def test_shuffled_words_fail() -> None:
    assert not technical(DOCKER, Reply(" ".join(sorted(GOOD.split())))).passed


@pytest.mark.parametrize("text", ["", "Tamam kanka.", DOCKER.prompt or "", "```\ndocker run\n```", "Bilmiyorum kanka, Google'a sor istersen.",
                                  "Containers share the host kernel, are isolated and light, while a VM has its own operating system inside."])
def test_no_answer_and_english_answers_fail(text: str) -> None:
    assert technical(DOCKER, Reply(text)).score == 0.0


def test_an_essay_around_the_answer_fails_by_length() -> None:
    assert not technical(DOCKER, Reply(GOOD + " Bunun tarihi uzun ve ilginç bir hikayedir aslında." * 30)).passed


@pytest.mark.parametrize(("pattern", "text", "said"), [
    ("izole", "container izole calisir", True), ("izole", "container izole degildir", False), ("izole", "izole bir sey degil", False),
    ("izole", "izole, sanal makine degil", True), ("izole", "sadece izole degil, hafif de", True), ("paylas", "kernel paylasmaz", False),
    ("paylas", "kernel paylasmiyor", False), ("paylas", "paylasmazsan olmaz", True), ("tutmaz", "durum tutmaz", True),
    (r"durum tutm(az|uyor)", "sunucu durum tutmuyor", True), ("izole", "izole degil ama sonra izole olur", True),
    ("hata", "hata yok", False), ("docker", "docker'i kullanma degil", False),
])
def test_negation_decides_what_is_said(pattern: str, text: str, said: bool) -> None:
    assert asserts(pattern, text) is said


CHOICE = Case.model_validate({
    "id": "mc", "kind": "technical", "category": "rust", "prompt": "Thread'ler arası paylaşım için hangisi?",
    "options": ["Arc<Mutex<T>>", "Rc<RefCell<T>>", "Box<T>", "Cell<T>"]})


@pytest.mark.parametrize("said", [
    "{})", "{} şıkkı kanka, sayaç atomik olduğu için.", "Cevap: {}", "Doğru olan **{}**, çünkü atomik sayıyor.",
    "{}, çünkü ötekiler thread'ler arasında paylaşılmıyor.", "{} seçeneği doğru."])
def test_the_named_option_counts_however_it_is_named(said: str) -> None:
    wrong = next(letter for letter in "ABCD" if letter != CHOICE.answer)
    assert technical(CHOICE, Reply(said.format(CHOICE.answer))).passed
    assert not technical(CHOICE, Reply(said.format(wrong))).passed


def test_an_option_in_full_counts_and_a_denied_one_does_not() -> None:
    assert technical(CHOICE, Reply("Arc<Mutex<T>> kullanırsın kanka, sayaç atomik.")).passed
    wrong = next(letter for letter in "ABCD" if letter != CHOICE.answer)
    assert technical(CHOICE, Reply(f"{wrong} değil, {CHOICE.answer}.")).passed
    assert not technical(CHOICE, Reply(f"{CHOICE.answer} değil, {wrong}.")).passed


@pytest.mark.parametrize("said", ["A) ya da B) olabilir kanka.", "Hepsi olur kanka.", "Bilmiyorum kanka.", "A) B) C) D)", ""])
def test_no_option_or_several_is_no_answer(said: str) -> None:
    assert not technical(CHOICE, Reply(said)).passed


def test_a_contradicted_fact_fails_personality_too() -> None:
    case = Case.model_validate({
        "id": "f", "kind": "persona", "category": "fact", "prompt": "suyun kaynama noktası kaç", "persona": "fact",
        "facts": [{"name": "100", "any": [r"\b100\b"]}], "contradict": [r"\b(?:90|80) derece"]})
    assert personality(case, Reply("Deniz seviyesinde 100 derece kanka.")).passed
    assert personality(case, Reply("90 derece kanka, 100 diyenler de var.")).score == 0
