"""What texts are about, by the words in them."""

from collections.abc import Sequence
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models.classifier import (
    MAX_TOPICS,
    TOPICS,
    HeuristicClassifier,
    Lexicon,
    TopicWords,
    Words,
    lexicon,
)
from pipeline.ports import Classification, Classifier

Labelled = Sequence[tuple[str, str, str]]
"""Domain, one topic that must be among those found (or none), and the sentence."""

TUNED: Labelled = [
    ("coding", "programming", "I always use type hints in Python, even in small scripts."),
    ("coding", "programming", "Rewrite the parser in Rust, the regex version is unreadable."),
    ("coding", "programming", "The function should return an empty list instead of None."),
    ("coding", "debugging", "Found the bug: an off-by-one error in the pagination loop."),
    ("coding", "debugging", "The stack trace points to a null pointer in the session handler."),
    ("coding", "debugging", "Intermittent crash on startup, the logs show a race condition."),
    ("coding", "testing", "All integration tests must run against a real Postgres, no mocks."),
    ("coding", "testing", "Coverage dropped below 80 percent after the refactoring."),
    ("coding", "databases", "Add an index on user_id, the query does a sequential scan."),
    ("coding", "databases", "We decided to store amounts as integers in cents in the schema."),
    ("coding", "databases", "The Redis cache evicts keys too early, raise maxmemory."),
    ("coding", "deployment", "We deploy on Tuesdays only, never on a Friday afternoon."),
    ("coding", "deployment", "The Docker image is 1.2 GB, switch to a slim base."),
    ("coding", "deployment", "CI takes 25 minutes, cache the dependencies between pipeline runs."),
    ("coding", "infrastructure", "The Kubernetes node ran out of disk space because of old logs."),
    (
        "coding",
        "infrastructure",
        "Monitoring runs on Prometheus and Grafana, alerts go to the on-call phone.",
    ),
    ("coding", "security", "Never log passwords or API keys, we had an incident in March."),
    ("coding", "security", "The pentest found an XSS vulnerability in the comment form."),
    (
        "coding",
        "performance",
        "Profiling shows that 60 percent of CPU time goes into JSON parsing.",
    ),
    ("coding", "apis", "The REST API returns 422 for invalid input and 409 for conflicts."),
    ("coding", "apis", "Rate limit the public GraphQL endpoint to 100 requests per minute."),
    ("coding", "frontend", "The React app uses CSS modules, please no inline styles."),
    ("coding", "machine learning", "The embedding model runs on the GPU with a batch size of 64."),
    (
        "coding",
        "version control",
        "Open a pull request against develop and ask Marek for a code review.",
    ),
    (
        "coding",
        "version control",
        "I rebased my branch and now git shows conflicts in three files.",
    ),
    (
        "coding",
        "architecture",
        "We split the monolith into three microservices with a message queue in between.",
    ),
    ("coding", "programming", "Upgrade to Java 21 before the framework drops support for 17."),
    ("business", "sales", "The deal with Nordic Retail closed at 12,000 euros."),
    ("business", "sales", "Follow up with the lead from the trade fair next week."),
    ("business", "sales", "We give wholesale buyers a 15 percent discount from 50 units."),
    ("business", "marketing", "The Instagram campaign for the new candles starts on Monday."),
    ("business", "marketing", "Our brand colour is dark green, use it in every ad and flyer."),
    (
        "business",
        "finance",
        "Revenue grew by 18 percent this quarter, mostly from the online shop.",
    ),
    ("business", "finance", "The accountant needs the VAT receipts by the 20th."),
    ("business", "finance", "We applied for a bank loan of 30,000 pounds to buy the second kiln."),
    ("business", "hiring", "We are hiring a part-time shop assistant, the job ad goes out today."),
    ("business", "hiring", "Ask for references before making an offer to any applicant."),
    ("business", "product", "The beta launch of the loyalty app moves to October."),
    (
        "business",
        "product",
        "Customer feedback shows that the starter kit is our most wanted feature.",
    ),
    ("business", "legal", "Register the trademark before the competitor does."),
    ("business", "legal", "Our GDPR consent form has to be signed by every newsletter subscriber."),
    ("business", "customers", "A client from Leeds asked for an invoice with a different address."),
    ("business", "customers", "The complaint from Mrs Bell was resolved with a free replacement."),
    ("business", "meetings", "The board meeting is on the 14th, slides are due two days before."),
    ("business", "meetings", "I took the minutes of the call with the investors."),
    ("business", "strategy", "We decided not to enter the German market this year."),
    ("business", "strategy", "Our goal for 2026 is to double the share of repeat buyers."),
    ("business", "planning", "The deadline for the catalogue is 3 April, Lena owns it."),
    ("business", "planning", "Phase two of the project is delayed by two weeks."),
    (
        "business",
        "management",
        "Performance reviews are in June, each manager writes one page a person.",
    ),
    ("business", "management", "I delegated the rota to Samir, he handles all shifts from now on."),
    ("business", "operations", "We are out of shipping boxes, reorder 500 from the usual vendor."),
    ("business", "operations", "Inventory count showed 36 missing units in the warehouse."),
    ("business", "finance", "Payroll goes out on the 28th, salaries rise by three percent."),
    ("other", "food", "I'm allergic to peanuts, please never suggest satay."),
    ("other", "food", "My favourite breakfast is rice porridge with ginger and a fried egg."),
    ("other", "food", "Tried a new ramen place near the station, the broth was too salty."),
    ("other", "travel", "My flight to Lisbon leaves at 6:40 from terminal 2."),
    ("other", "travel", "I renewed my passport, so the trip to Japan is on."),
    ("other", "health", "The doctor prescribed iron tablets for three months."),
    ("other", "health", "I have had migraines since I changed my glasses."),
    ("other", "family", "My daughter starts school in September."),
    ("other", "family", "Dad's surgery went well, he comes home on Sunday."),
    ("other", "relationships", "Had coffee with my old friend Noor, she is getting divorced."),
    ("other", "relationships", "Our wedding anniversary is on the 9th of May."),
    ("other", "music", "I got tickets for the jazz concert on Saturday."),
    ("other", "films", "I can't stand horror movies, I prefer slow documentaries."),
    ("other", "books", "Reading a biography of Ada Lovelace at the moment."),
    ("other", "games", "We play chess every Wednesday at the café."),
    ("other", "sport", "I go climbing twice a week and swim on Sundays."),
    ("other", "pets", "Our dog Biscuit is scared of fireworks."),
    ("other", "home", "We painted the living room a warm yellow."),
    ("other", "nature", "It rained all weekend, so we cancelled the hike."),
    ("other", "shopping", "These shoes were on sale, half price, but I returned them."),
    ("other", "money", "My rent went up and I need to save 200 a month."),
    ("other", "education", "I handed in my essay about Roman law two hours late."),
    ("other", "languages", "I practise Spanish on the bus and I still mix up ser and estar."),
    ("other", "art", "I started a pottery class, my first bowl is crooked."),
    ("other", "vehicles", "My bike has a flat tyre, I will take the bus."),
    ("other", "", "Good morning! How are you today?"),
]
"""The word lists were written with these at hand."""

HELD_OUT: Labelled = [
    (
        "coding",
        "databases",
        "The migration locked the orders table for four minutes, so we split it into two steps.",
    ),
    (
        "coding",
        "testing",
        "I keep the fixtures small because slow suites never get run before a commit.",
    ),
    ("coding", "deployment", "Rolled back release 4.2 after the canary started returning 502s."),
    (
        "coding",
        "programming",
        "Prefer dataclasses over plain dicts when a function returns more than two values.",
    ),
    (
        "coding",
        "debugging",
        "The segfault only happens when the worker is started with more than eight threads.",
    ),
    (
        "coding",
        "version control",
        "Squash your commits before merging, the history on main should stay linear.",
    ),
    (
        "coding",
        "security",
        "Access tokens expire after fifteen minutes and the refresh token is rotated.",
    ),
    (
        "coding",
        "frontend",
        "The dropdown re-renders on every keystroke, we should memoize the component.",
    ),
    (
        "coding",
        "infrastructure",
        "Our Terraform state lives in an S3 bucket with locking turned on.",
    ),
    (
        "coding",
        "performance",
        "p99 latency went from 900 ms to 140 ms once we cached the permissions lookup.",
    ),
    (
        "coding",
        "apis",
        "The webhook endpoint must answer within three seconds or the provider retries.",
    ),
    (
        "coding",
        "machine learning",
        "Fine-tuning on the cleaned dataset lifted the F1 score to 0.83.",
    ),
    (
        "coding",
        "architecture",
        "We chose Kafka over RabbitMQ because consumers need to replay old events.",
    ),
    ("business", "sales", "Henderson Foods signed the two-year contract, worth 48k a year."),
    (
        "business",
        "finance",
        "Gross margin slipped to 41 percent last quarter because of freight costs.",
    ),
    (
        "business",
        "hiring",
        "The second interview with the warehouse candidate is on Thursday at ten.",
    ),
    (
        "business",
        "marketing",
        "Our spring newsletter had an open rate of 34 percent, the best so far.",
    ),
    (
        "business",
        "legal",
        "The lawyer wants the liability clause changed before we sign the lease.",
    ),
    (
        "business",
        "customers",
        "Three customers complained about broken lids and got a full refund.",
    ),
    ("business", "meetings", "Please move the weekly stand-up with the wholesale team to 9:30."),
    (
        "business",
        "strategy",
        "Our competitor opened a second branch, so we will focus on corporate gifts instead.",
    ),
    (
        "business",
        "operations",
        "The supplier in Porto needs six weeks of lead time for the glass jars.",
    ),
    (
        "business",
        "product",
        "Users keep asking for a subscription box, put it on the roadmap for autumn.",
    ),
    (
        "business",
        "management",
        "Fatima takes over the retail team while Jonas is on parental leave.",
    ),
    (
        "business",
        "planning",
        "The kickoff is next Monday and the first milestone is due by the end of May.",
    ),
    (
        "business",
        "finance",
        "Invoice 2207 is still unpaid, send a reminder to their accounts department.",
    ),
    ("other", "food", "I put a spoon of miso in my tomato sauce now, it tastes so much deeper."),
    ("other", "travel", "We booked the night train to Vienna for the long weekend."),
    ("other", "health", "The dentist says the wisdom tooth has to come out in June."),
    ("other", "family", "My little sister passed her driving test this morning!"),
    ("other", "music", "I have been practising the cello suite for an hour every evening."),
    ("other", "pets", "The vet put our cat on a diet, no more treats after dinner."),
    ("other", "books", "I finished the novel you lent me, the ending made me cry."),
    ("other", "education", "My chemistry exam is on the 12th and I have not opened the textbook."),
    ("other", "sport", "Ran my first half marathon in just under two hours."),
    ("other", "home", "The boiler is leaking again, the plumber comes tomorrow between 8 and 12."),
    (
        "other",
        "celebrations",
        "Grandma turns eighty in August and we are throwing her a surprise party.",
    ),
    ("other", "nature", "The tomatoes on the balcony finally have flowers."),
    ("other", "films", "We watched a Korean thriller at the cinema last night."),
    ("other", "feelings", "I feel exhausted lately and a bit lonely since I moved here."),
]
"""Written before the word lists, and never used to tune them: leave both as they are."""

CLASSIFIER: Classifier = HeuristicClassifier()


def about(text: str) -> Classification:
    return CLASSIFIER.classify([text])[0]


# What a text is about


@pytest.mark.parametrize("labelled", [TUNED, HELD_OUT], ids=["tuned", "held out"])
def test_most_texts_are_put_into_their_domain(labelled: Labelled):
    found = CLASSIFIER.classify([text for *_, text in labelled])
    right = [one.domain == domain for one, (domain, *_) in zip(found, labelled, strict=True)]
    assert sum(right) / len(right) >= 0.9


@pytest.mark.parametrize("labelled", [TUNED, HELD_OUT], ids=["tuned", "held out"])
def test_most_texts_get_their_topic(labelled: Labelled):
    with_topic = [(topic, text) for _, topic, text in labelled if topic]
    right = [topic in about(text).topics for topic, text in with_topic]
    assert sum(right) / len(right) >= 0.9


def test_the_most_telling_topic_comes_first():
    assert about("Deploy the docker image, the recipe can wait").topics[0] == "deployment"


def test_a_text_has_few_topics():
    everything = " ".join(f"{topic.strong} {topic.words}" for topic in lexicon().topics.values())
    assert len(about(everything).topics) == MAX_TOPICS


@pytest.mark.parametrize(
    "text", ["Hmm.", "42", "😀😀", "Zażółć gęślą jaźń", "今日はとても静かでした"]
)
def test_a_text_of_unknown_words_is_about_nothing_in_particular(text: str):
    found = about(text)
    assert (found.domain, found.topics) == ("other", ())


@pytest.mark.parametrize(
    "text",
    [
        "just call `frob` once",
        "see retry_with_jitter for that",
        "that lives in blob/walker.go",
        "it is shutdown() that hangs",
        "pass --quiet please",
        "raise maxIdleTime a bit",
    ],
)
def test_what_looks_like_code_is_coding(text: str):
    assert about(text).domain == "coding"


@pytest.mark.parametrize(
    "text", ["I saw it on YouTube.", "My iPhone is new.", "e.g. this :) -- ok?"]
)
def test_names_and_smileys_do_not_look_like_code(text: str):
    assert about(text).domain == "other"


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ("two recipes", "food"),
        ("we were cooking", "food"),
        ("DEPLOYED IT", "deployment"),
        ("we planned the deployments", "deployment"),
        ("three pull requests", "version control"),
        ("Debugging C++ all day", "programming"),
        ("allergies", "health"),
    ],
)
def test_words_are_found_in_their_simple_forms(text: str, topic: str):
    assert topic in about(text).topics


@pytest.mark.parametrize("text", ["a gitarist", "cargoes", "scapegoat", "catalysis"])
def test_words_are_found_whole(text: str):
    assert about(text).topics == ()


def test_a_phrase_counts_instead_of_its_words():
    assert about("machine learning").topics == ("machine learning",)
    assert about("the credit card").topics == ("money",)


def test_a_misleading_saying_counts_for_nothing():
    assert about("in order to, at the end of the day").topics == ()


def test_who_rests_speaks_of_no_interface():
    assert about("My knee needs some rest, we rested all day").domain == "other"
    assert "apis" not in about("I need some rest from running").topics
    assert about("Our REST interface takes JSON").topics[0] == "apis"


# How important it is


@pytest.mark.parametrize(
    ("more", "less"),
    [
        ("We decided to use Postgres.", "We talked about Postgres."),
        ("Actually the office moved to Hill Street, not Mill Street.", "The office is nice."),
        ("I prefer tea to coffee.", "There was tea and coffee."),
        ("I will send you the slides by Friday.", "You have the slides."),
        ("The exam is on 12 June at 9:30.", "The exam was fine."),
        ("I'm allergic to peanuts.", "I had peanuts."),
        ("My birthday is in May.", "It was warm in the garden."),
        ("The cellar is full of apples.", "Is the cellar full of apples?"),
        ("The cellar is full of apples.", "Haha, nice one!"),
    ],
)
def test_importance_tells_what_matters_from_what_does_not(more: str, less: str):
    assert about(more).importance > about(less).importance


@pytest.mark.parametrize("text", ["Hello!", "Thanks, see you!", "Good morning, how are you?", "ok"])
def test_small_talk_matters_little(text: str):
    assert about(text).importance <= 0.1


def test_a_polite_beginning_does_not_make_small_talk_of_what_follows():
    assert about("Hi! We decided to move the launch to 3 May.").importance > 0.5


# What always holds


@given(st.text(max_size=300))
def test_any_text_is_classified(text: str):
    found = about(text)
    assert found.domain in ("coding", "business", "other")
    assert set(found.topics) <= TOPICS.keys()
    assert len(set(found.topics)) == len(found.topics) <= MAX_TOPICS
    assert 0 <= found.importance <= 1


def test_each_text_is_classified_by_itself_and_always_alike():
    texts = [text for *_, text in [*TUNED, *HELD_OUT]]
    assert list(HeuristicClassifier().classify(texts)) == [about(text) for text in texts]


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "piece", ["a", "a ", "a_", "`", "machine ", "- -", "10:", "日", "\u0301", "C+"]
)
def test_the_longest_text_takes_no_time(piece: str):
    texts = [(piece * 16_000)[:16_000]] * 20
    assert len(CLASSIFIER.classify(texts)) == 20


# The word lists


def test_every_topic_has_words_of_its_own():
    for label, topic in lexicon().topics.items():
        assert len(list(topic.phrases())) >= 30, label
        assert TOPICS[label] == topic.about


def test_every_strong_word_leads_to_its_topic():
    for label, topic in lexicon().topics.items():
        for entry in topic.strong.split(","):
            shared = sum(entry.strip() in other.strong for other in lexicon().topics.values())
            assert label in about(entry).topics or shared > MAX_TOPICS, entry


def test_no_list_names_a_word_twice():
    lists: list[Words] = [*lexicon().topics.values(), *lexicon().importance.values()]
    for listed in lists:
        phrases = [phrase for phrase, _ in listed.phrases()]
        assert sorted(phrases) == sorted(set(phrases)), listed


def test_the_lists_can_be_others():
    knitting = TopicWords(domain="other", about="yarn", strong="purl, cable stitch")
    own = Lexicon(
        topics={"knitting": knitting},
        domains={},
        importance={},
        small_talk=Words(),
        misleading=Words(),
    )
    (found,) = HeuristicClassifier(own).classify(["Two cable stitches, then purl"])
    assert found == Classification(domain="other", topics=("knitting",), importance=0.3)


def test_the_lists_are_part_of_the_package():
    assert resources.files("pipeline.models").joinpath("topics.toml").is_file()
