"""The options of eval and infer."""

from dataclasses import dataclass
from typing import ClassVar

from metric_learning.checks import UserError, check_range
from metric_learning.config.base import COUNT, Options, option
from metric_learning.config.names import EXPORTS, MODELS, SPLITS, TASKS, VOTES
from metric_learning.config.values import check_channel_numbers, fars_of, shape_of, vote_weights_of

# What --export can take: the weights, how they take pictures, and where the files go.
OF_EXPORT = {
    *("export", "output", "pretrained_model", "checkpoint", "model_save_dir", "model", "embedding_size", "image_shape"),
    *("color_order", "image_mean", "image_std", "test_crop", "partial_weights", "group_means", "task"),
    *("threads", "use_gpu", "num_workers"),
}


@dataclass(frozen=True, kw_only=True)
class UseOptions(Options):
    """What eval and infer share: they need no flags, all that they have to know travels with the weights."""

    pretrained_model: str | None = option(
        None, "weights: a run or a file; by default the newest run; with commas several classifiers, that vote"
    )
    checkpoint: str | None = option(None, "the same as --pretrained_model")
    batch_size: int = option(10, "pictures a step")
    model: str | None = option(None, "backbone; by default as the weights say", choices=MODELS)
    embedding_size: int | None = option(None, "size of the embedding; by default as the weights say")
    image_shape: str | None = option(None, "channels,height,width; by default as the weights say")
    color_order: str | None = option(None, "RGB or BGR; by default as the weights say", choices=("RGB", "BGR"))
    image_mean: str | None = option(None, "mean of each channel, R,G,B in 0..1; by default as the weights say")
    image_std: str | None = option(None, "standard deviation of each channel; by default as the weights say")
    test_crop: float | None = option(None, "share of the short side that is kept; by default as the weights say")
    partial_weights: bool = option(False, "take what fits of weights that do not fit as a whole")
    group_means: bool = option(True, "pairs: take off the mean embedding of their group, where the weights hold those")
    flip_test: bool = option(False, "add the embedding of the mirrored picture")
    rerank: bool = option(False, "order what is nearest anew, by k-reciprocal neighbours: retrieval, --query")
    rerank_k1: int = option(20, "rerank: neighbours that a picture is encoded by")
    rerank_k2: int = option(6, "rerank: pictures whose codes are averaged")
    rerank_lambda: float = option(0.3, "rerank: share of the original distance")
    task: str | None = option(
        None, "embed: by distances; classify: what class a picture is of; by default as the weights say", choices=TASKS
    )
    vote: str | None = option(
        None,
        "several classifiers: hard: most say so; soft: mean probability; weighted: by --weights; fusion: a regression "
        "on the embeddings of all, fitted on the validation pictures [soft]",
        choices=VOTES,
    )
    weights: str | None = option(
        None, "vote=weighted: a number for each classifier, such as 2,1,1; or fit: on the validation pictures"
    )
    uncertain: str | None = option(
        None, "classify: write the pictures between two classes into this csv, and a picture sheet beside it"
    )
    uncertain_band: float = option(0.05, "uncertain: how far from one half; of more classes, from the middle of two")

    def validate(self) -> None:
        super().validate()
        check_range("--batch_size", self.batch_size, 1, 10**6)
        channels = shape_of(self.image_shape)[0] if self.image_shape is not None else None
        check_channel_numbers("image_mean", self.image_mean or "", channels)
        check_channel_numbers("image_std", self.image_std or "", channels)
        if self.embedding_size is not None:
            check_range("--embedding_size", self.embedding_size, 0, 2**16)
        if self.test_crop is not None:
            check_range("--test_crop", self.test_crop, 0.1, 1)
        if self.pretrained_model and self.checkpoint and self.pretrained_model != self.checkpoint:
            raise UserError("--pretrained_model and --checkpoint name two different weights; give one of them.")
        check_range("--rerank_k1", self.rerank_k1, 1, 200)
        check_range("--rerank_k2", self.rerank_k2, 1, self.rerank_k1)
        check_range("--rerank_lambda", self.rerank_lambda, 0, 1)
        for name in ("rerank_k1", "rerank_k2", "rerank_lambda"):
            if name in self.typed and not self.rerank:
                raise UserError(f"--{name} has no meaning without --rerank=True.")
        self._check_vote()

    def _check_vote(self) -> None:
        check_range("--uncertain_band", self.uncertain_band, 0, 0.5)
        if self.weights is not None:
            if self.vote != "weighted":
                raise UserError("--weights has no meaning without --vote=weighted.")
            if self.weights != "fit":
                vote_weights_of(self.weights)
        elif self.vote == "weighted":
            raise UserError("--vote=weighted needs --weights: numbers such as 2,1,1, or fit.")
        for name in ("vote", "uncertain"):
            if getattr(self, name) is not None and self.task == "embed":
                raise UserError(f"--{name} has no meaning with --task=embed.")
        if "uncertain_band" in self.typed and self.uncertain is None:
            raise UserError("--uncertain_band has no meaning without --uncertain.")

    @property
    def named_weights(self) -> str | None:
        return self.pretrained_model or self.checkpoint


@dataclass(frozen=True, kw_only=True)
class EvalOptions(UseOptions):
    command: ClassVar[str] = "eval"
    purpose: ClassVar[str] = "Measure an embedding: Recall@k, MAP@R, and verification TAR@FAR group by group."

    split: str | None = option(None, "which pictures are measured [test]", choices=SPLITS)
    pairs: str | None = option(
        None,
        "pairs to verify instead of all pairs within each group: csv (a,b,same[,group]), LFW's pairs.txt or "
        "pairsDevTest.txt, InsightFace's .bin, RFW's folder or list, or the word rfw",
    )
    templates: str | None = option(None, "csv path,template,media: --pairs (csv) names these templates, not pictures")
    folds: int | None = option(None, "folds of the accuracy over --pairs [10 where the list has folds]")
    fars: str = option("0.1,0.01,0.001,0.0001", "false-accept rates to report the true-accept rate at")
    output: str | None = option(None, "where the results go (json; a plot beside it) [in the run's folder]")
    report: str | None = option(
        None, "a page to look at: figures, drawings and pictures in this one .html file, which needs no network"
    )
    calibrate: str | None = option(
        None, "write the weights to this .safetensors, their similarity fitted on the pairs that are measured"
    )
    calibrate_far: float = option(1e-3, "false-accept rate at which the fitted similarity is 0.5")
    clean: str | None = option(
        None, "instead of figures: list the pictures that are probably in the wrong class (csv; a sheet beside it)"
    )

    def validate(self) -> None:
        super().validate()
        fars_of(self.fars)
        if self.pairs and self.split:
            raise UserError("--split has no meaning with --pairs: the pairs say which pictures are measured.")
        for name in ("templates", "folds"):
            if getattr(self, name) is not None and not self.pairs:
                raise UserError(f"--{name} needs a list of pairs; name one by --pairs.")
        if self.folds is not None:
            check_range("--folds", self.folds, 2, 1000)
        check_range("--calibrate_far", self.calibrate_far, 1e-9, 0.5)
        if "calibrate_far" in self.typed and not self.calibrate:
            raise UserError("--calibrate_far needs a file to write; name one by --calibrate.")
        if self.calibrate and self.templates:
            raise UserError("--calibrate takes pairs of pictures: templates score higher. Leave --templates out.")
        if self.rerank and self.pairs:
            raise UserError("--rerank has no meaning with --pairs: pairs are not ranked. Leave one of them out.")
        without = (
            "rerank",
            "pairs",
            "templates",
            "folds",
            "fars",
            "output",
            "report",
            "calibrate",
            "calibrate_far",
            "group_means",
        )
        if self.clean and (useless := [name for name in without if name in self.typed]):
            raise UserError(
                f"--clean measures nothing, so --{useless[0]} has no meaning with it. Leave one of them out."
            )


@dataclass(frozen=True, kw_only=True)
class InferOptions(UseOptions):
    command: ClassVar[str] = "infer"
    purpose: ClassVar[str] = "Use an embedding: embed pictures, compare two of them, find the nearest."

    batch_size: int = option(1, "pictures a step")
    input: str | None = option(None, "a folder, a list (one path a line) or a picture to embed [the test pictures]")
    output: str | None = option(
        None,
        "where the embeddings (.npz), the scores of --pairs or the classes (.csv) go [in the run's folder]; "
        "of a search in --gallery the sheet (.png) [beside it]",
    )
    export: str | None = option(
        None, "write the network into the folder --output for programs without this toolkit", choices=EXPORTS
    )
    pair: list[str] | None = option(None, "two pictures to compare: --pair a.jpg b.jpg")
    pairs: str | None = option(None, "pairs to score into --output: csv (a,b[,group]), or any list that eval takes")
    group: str | None = option(None, "group of the two pictures: its own operating point instead of the common one")
    threshold: float | None = option(None, "cosine from which two pictures are the same, instead of the stored one")
    query: str | None = option(None, "a picture, to find the nearest in --gallery, or among the embeddings in --output")
    top_k: int = option(5, "how many of the nearest", also=("topk",))
    gallery: str | None = option(
        None, "a folder or .npz that is searched by --query; without that the pictures of --input are added to it"
    )
    remove: str | None = option(None, "take a picture, a folder or those of a list (.txt) out of --gallery")
    probabilities: bool = option(False, "classify: a column for the probability of each class")
    serve: bool = option(False, "a local page to compare two pictures and to search --gallery by one")
    host: str = option("127.0.0.1", "serve: address to listen on; by default only this machine reaches the page")
    port: int = option(8400, "serve: port to listen on; 0: any that is free")

    def validate(self) -> None:
        super().validate()
        check_range("--top_k", self.top_k, 1, COUNT)
        if self.export and (useless := sorted(self.typed - OF_EXPORT)):
            raise UserError(f"--{useless[0]} has no meaning with --export. Leave one of them out.")
        given = [f"--{name}" for name in ("pair", "pairs", "query", "input", "remove", "serve") if getattr(self, name)]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} are different jobs; give one of them.")
        if self.rerank and not self.query:
            raise UserError("--rerank orders what a --query finds; give one.")
        if self.remove and not self.gallery:
            raise UserError("--remove takes pictures out of a gallery; name it by --gallery.")
        if self.gallery and (self.pair or self.pairs):
            raise UserError("--gallery has no meaning with --pair and --pairs. Leave one of them out.")
        if self.gallery and self.output and not self.query:
            raise UserError("--output has no meaning with --gallery, but for the sheet of a --query. Leave it out.")
        if "top_k" in self.typed and not (self.query or self.serve):
            raise UserError("--top_k is how many a search finds; it has no meaning without --query or --serve.")
        others = [
            f"--{name}" for name in ("pair", "pairs", "query", "gallery", "remove", "serve") if getattr(self, name)
        ]
        others += ["--task=embed"] if self.task == "embed" else []
        classes = [f"--{name}" for name in ("probabilities", "vote", "uncertain") if getattr(self, name)]
        if classes and others:
            raise UserError(f"{classes[0]} is about classes, {others[0]} about embeddings. Leave one of them out.")
        for name in ("group", "threshold"):
            if getattr(self, name) is not None and not (self.pair or self.pairs or self.serve):
                raise UserError(f"--{name} is about two pictures; give them by --pair or --pairs, or use --serve.")
        check_range("--port", self.port, 0, 65535)
        for name in ("host", "port"):
            if name in self.typed and not self.serve:
                raise UserError(f"--{name} has no meaning without --serve.")
        if self.threshold is not None:
            check_range("--threshold", self.threshold, -1, 1)
