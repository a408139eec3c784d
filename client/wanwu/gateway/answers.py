"""The shapes of the gateway's answers, as OpenAPI describes them."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from wanwu.answers import Recognition
from wanwu.catalog import in_chinese
from wanwu.doubts import Doubt
from wanwu.rank import Prediction


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProblemDocument(_Answer):
    """What went wrong (RFC 9457), in Chinese or English by Accept-Language."""

    type: str = Field(examples=["urn:wanwu:problem:picture_damaged"])
    title: str
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What came, what was expected, what to change.")
    code: str = Field(description="For programs: it never changes.", examples=["picture_damaged"])
    request_id: str | None = Field(default=None, description="As in the header X-Request-ID.")


class LabelScore(_Answer):
    """A label with its score."""

    label: str = Field(examples=["猫"])
    score: float = Field(examples=[0.98])


class WarningAnswer(_Answer):
    """What makes an answer doubtful, in Chinese or English by Accept-Language."""

    code: str = Field(description="For programs: it never changes.", examples=["label_single"])
    text: str


class PredictAnswer(_Answer):
    """The best labels of one picture, best first."""

    results: list[LabelScore]
    warnings: list[WarningAnswer] = Field(description="What makes the answer doubtful.")


class PredictionAnswer(LabelScore):
    """A label, its score, and the bare similarity, from -1 to 1."""

    cosine: float = Field(examples=[0.31])
    category: str | None = None


class PictureAnswer(_Answer):
    """What one picture shows; or, where it is one of several, why it was refused."""

    index: int = Field(description="The picture's place in the request, from 0.")
    predictions: list[PredictionAnswer] | None = Field(
        default=None,
        description="Best label first.",
    )
    uncertain: bool | None = Field(default=None, description="No label can be said to be right.")
    best_cosine: float | None = None
    warnings: list[WarningAnswer] = Field(default=[], description="What makes it doubtful.")
    error: ProblemDocument | None = None


class RecognizeAnswer(_Answer):
    """The pictures' answers, in the order of the request."""

    results: list[PictureAnswer]
    warnings: list[WarningAnswer] = Field(description="Those of all pictures, each once.")
    model: str | None = Field(description="The model that answered.")
    fingerprint: str | None = Field(description="Of the export that answered; 63 bits, as text.")
    banks: list[str] = Field(description="The banks compared with; none with your own labels.")
    seconds: float = Field(description="From the pictures to the answer, inside the gateway.")


class Embedding(_Answer):
    """One picture's vector; or, where it is one of several, why it was refused."""

    index: int
    embedding: list[float] | None = Field(default=None, description="Unit length.")
    error: ProblemDocument | None = None


class EmbedAnswer(_Answer):
    """The vectors of pictures and texts; a dot product of two is their cosine."""

    images: list[Embedding]
    texts: list[list[float]] = Field(description="Of each text, unit length.")
    warnings: list[WarningAnswer] = Field(description="Texts that the model cannot read.")
    model: str
    fingerprint: str = Field(description="Vectors of different fingerprints do not compare.")


class BankAnswer(_Answer):
    """A bank of labels."""

    name: str
    labels: int = Field(description="How many.")
    model: str
    fingerprint: str
    rejects: bool = Field(
        description="Whether the model can say that none of its labels is right: it scores each by "
        "itself, or knows the lowest cosine of a right one. Else the best is only the closest.",
    )


class BanksAnswer(_Answer):
    """The served banks, the default first."""

    banks: list[BankAnswer]


class LabelsAnswer(_Answer):
    """The labels of a bank."""

    bank: str
    labels: list[str]


class Ready(_Answer):
    """The gateway, Triton, its models and its bank answer."""

    ready: bool
    model: str
    fingerprint: str


class Alive(_Answer):
    """The gateway runs."""

    alive: bool


def prediction_answer(prediction: Prediction) -> PredictionAnswer:
    """Give a label as the API tells it."""
    return PredictionAnswer(
        label=prediction.label,
        score=prediction.score,
        cosine=prediction.cosine,
        category=prediction.category,
    )


def warning_answers(doubts: Iterable[Doubt], *, chinese: bool) -> list[WarningAnswer]:
    """Return warnings in the reader's language, each once."""
    return [
        WarningAnswer(code=each.code, text=in_chinese(each) if chinese else str(each))
        for each in dict.fromkeys(doubts)
    ]


def picture_answer(index: int, found: Recognition, *, chinese: bool) -> PictureAnswer:
    """Give one picture's answer as the API tells it."""
    return PictureAnswer(
        index=index,
        predictions=[prediction_answer(each) for each in found.predictions],
        uncertain=found.uncertain,
        best_cosine=found.best_cosine,
        warnings=warning_answers(found.warnings, chinese=chinese),
    )
