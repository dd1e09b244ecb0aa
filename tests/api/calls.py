"""Random calls of all that reads, writes, judges and trains, with the answers that are right where there are such."""

import itertools
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch

import chargen
from chargen.data.directions import BackwardBatches
from chargen.data.made_languages import LANGUAGES
from chargen.data.reading_config import ReadingConfig
from chargen.decoding.numpy_engine import NumpyEngine
from chargen.rng import Purpose, generator_seed, uniform
from chargen.storage.model_file import build_model
from tests.api.calls_of_models import Call, ModelCalls, by_torch, file
from tests.run_folders import write_run
from tests.small_models import small_model


class Calls(ModelCalls):
    """One random call of each kind; the methods' names are those of the kinds."""

    # Texts and ids

    def vocabulary(self) -> Call:
        return Call(chargen.Vocabulary, {"characters": "abc", "folded": "xy", "unit": "character"})

    def vocabulary_of_counts(self) -> Call:
        arguments = {"counts": np.bincount([97, 98, 98]), "unit": self.odd.pick(["character", "byte"]), "min_count": 2}
        return Call(lambda **options: len(chargen.Vocabulary.from_counts(**options)), arguments)

    def encode(self) -> Call:
        stored = self.odd.pick(
            [chargen.Vocabulary("abc"), chargen.Vocabulary("abc", folded="xy"), chargen.Vocabulary(unit="byte")]
        )
        return Call(stored.encode, {"text": "abc", "unknown": self.odd.pick(["error", "skip", "replace"])})

    def decode(self) -> Call:
        stored = self.odd.pick(
            [chargen.Vocabulary("abc"), chargen.Vocabulary("abc", folded="xy"), chargen.Vocabulary(unit="byte")]
        )

        def reference(ids: Any) -> str:
            numbers = np.asarray(ids)
            if (
                numbers.ndim != 1
                or (numbers.size and numbers.dtype.kind not in "iu")
                or not np.isin(numbers, np.arange(len(stored))).all()
            ):
                raise ValueError("no ids")
            if stored.byte_mode:
                return bytes(numbers.tolist()).decode("utf-8", "replace")
            return "".join((stored.characters + "\ufffd" * bool(stored.folded))[number] for number in numbers.tolist())

        return Call(stored.decode, {"ids": self.ids(5, size=3)}, reference)

    def count(self) -> Call:
        stored = self.odd.pick([chargen.Vocabulary("abc"), chargen.Vocabulary(unit="byte")])
        return Call(stored.count_characters, {"ids": self.ids(5, size=3)})

    def n_grams(self) -> Call:
        def run(text: Any, size: Any, order: Any, ids: Any, length: Any, seed: Any) -> Any:
            model = chargen.NGram(text, size, order)
            assert len(model.sample(length, seed)) == length
            return model.log_probs(ids)

        arguments = {"text": self.ids(30, size=5), "size": 5, "order": 3, "ids": self.ids(9, size=5)}
        return Call(run, arguments | {"length": 4, "seed": 1}, small=("size", "order", "length"))

    def corpus_info(self) -> Call:
        corpus = chargen.Corpus.from_text("abcabd\n" * 30, unit=self.odd.pick(["character", "byte"]))

        def run(**options: Any) -> Any:
            info = chargen.corpus_info(corpus, **options)
            assert isinstance(info, chargen.CorpusInfo)
            return repr(info)

        return Call(run, {"order": 3, "sample": 9, "seed": 1}, small=("order", "sample"))

    def batches(self) -> Call:
        kind = self.odd.pick([chargen.ConsecutiveBatches, chargen.RandomBatches])

        def run(ids: Any, batch_size: Any, seq_length: Any, seed: Any, step: Any) -> Any:
            batches = kind(ids, batch_size, seq_length, seed)
            if kind is chargen.RandomBatches and self.random.random() < 0.3:
                batches = BackwardBatches(batches)
            batch = batches.batch(step)
            assert batch.inputs.dtype == np.int64
            assert batch.inputs.shape == batch.targets.shape == (batch_size, seq_length)
            assert np.isin(batch.inputs, ids).all()
            return batch.fresh

        arguments = {"ids": self.ids(30), "batch_size": 3, "seq_length": 5, "seed": 1, "step": 2}
        return Call(run, arguments, small=("batch_size", "seq_length"))

    def draws(self) -> Call:
        def run(seed: Any, n: Any) -> Any:
            assert 0 <= uniform(seed, 1, n, Purpose.SAMPLE) < 1
            return generator_seed(seed, 1, n, Purpose.SAMPLE)

        return Call(run, {"seed": 1, "n": 2}, fixed=("n",))

    def clean(self) -> Call:
        reading = self.odd.pick([None, ReadingConfig(newline="lf"), ReadingConfig(normalize="NFC")])
        return Call(chargen.clean, {"text": "a\r\nb", "config": reading})

    def made_corpus(self) -> Call:
        def run(**options: Any) -> Any:
            made = chargen.make_corpus(**options)
            assert isinstance(made, chargen.MadeCorpus)
            return made.text

        arguments = {"name": self.odd.pick([*LANGUAGES]), "num": 3, "seed": 1, "labelled": True}
        return Call(run, arguments, small=("num",))

    def named_corpus(self) -> Call:
        assert all(isinstance(corpus, chargen.NamedCorpus) for corpus in chargen.list_corpora())
        return Call(lambda **options: len(chargen.get_corpus(**options)), {"name": "python", "offline": True})

    def compare(self) -> Call:
        folder = write_run(self.folder / "runs" / "a", 2.0)

        def run(runs: Any) -> Any:
            comparison = chargen.compare(runs)
            assert isinstance(comparison, chargen.Comparison)
            return repr(comparison)

        return Call(run, {"runs": self.odd.pick([str(folder), (str(folder),), folder.parent])})

    # Settings

    def settings(self) -> Call:
        kind = self.odd.pick([chargen.ModelConfig, chargen.TrainConfig, chargen.SampleConfig, chargen.CorpusConfig])
        plain = kind()
        names = self.random.permutation(sorted(plain.__dataclass_fields__))[:3]
        return Call(lambda **options: repr(kind(**options)), {name: getattr(plain, name) for name in names})

    # Writing and judging

    def sampler(self) -> Call:
        stored = self.file()
        direction = self.odd.pick(stored.config.directions)
        method = self.odd.pick(["generate", "feed", "feed_ids", "stream", "reseed", "all", "position"])

        def run(num: Any, seed: Any, value: Any, length: Any, **settings: Any) -> Any:
            sampler = chargen.Sampler(stored, num=num, seed=seed, direction=direction, **settings)
            if method in ("feed", "feed_ids", "reseed"):
                getattr(sampler, method)(value)
            if method == "stream":
                return list(itertools.islice(sampler.stream(length), 9))  # None has no end
            if method == "position":
                return sampler.hidden_and_logits()
            if method == "generate":
                return sampler.generate(length)
            return [sample.text for sample in sampler.generate_all(length)]

        value: Any = {"feed": "abc", "feed_ids": self.ids(5, size=len(stored.vocabulary)), "reseed": 4}.get(method, 0)
        settings = dict(
            [self.odd.pick([("temperature", 0.5), ("top_k", 3), ("no_repeat", 3), ("stop", ("a",)), ("ban", "b")])]
        )
        arguments = {"num": 1 if method in ("stream", "generate") else 2, "seed": 1, "value": value, "length": 6}

        def reference(**options: Any) -> Any:
            engine = NumpyEngine(stored.config, stored.arrays, direction)
            with mock.patch("chargen.sampling.sampler.new_engine", return_value=engine):
                answer = run(**options)
            return answer if options["seed"] is not None else None  # then any text is right

        return Call(run, arguments | settings, reference, small=("num", "length", "no_repeat"))

    def sampler_of_model(self) -> Call:
        stored = self.file()
        model = build_model(stored)

        def run(vocabulary: Any, counts: Any) -> Any:
            return chargen.Sampler(model, seed=1, vocabulary=vocabulary, counts=counts).generate(5)

        return Call(run, {"vocabulary": stored.vocabulary, "counts": stored.counts}, fixed=("vocabulary",))

    def writer(self) -> Call:
        stored = self.file()
        settings = dict([self.odd.pick([("temperature", 0.5), ("top_k", 3), ("ban", "b"), ("label", None)])])

        def run(seed: Any, pieces: Any, text: Any, until: Any, num: Any, **settings: Any) -> Any:
            writer = chargen.Writer(stored, seed=seed, pieces=pieces, **settings)
            return ["".join(texts) for texts in zip(*writer.write(text, until, num), strict=True)]

        arguments = {"seed": 1, "pieces": 2, "text": "abc", "until": "word", "num": 2}
        return Call(run, arguments | settings, small=("num",))

    def draft(self) -> Call:
        def run(text: Any, cursor: Any, piece: Any, encoding: Any) -> Any:
            draft = chargen.Draft(self.folder / "no-draft.txt", encoding)
            draft.change(text, cursor)
            draft.begin_piece()
            draft.extend_piece(piece)
            draft.end_piece()
            assert draft.undo()
            assert draft.redo()
            return draft.text

        return Call(run, {"text": "abc", "cursor": 2, "piece": "de", "encoding": "utf-8"})

    def model_of_arrays(self) -> Call:
        """A ModelFile made by hand, which is saved or writes a text."""
        stored = self.file()
        way = self.odd.pick(["save", "write", "torch"])

        def run(arrays: Any, counts: Any) -> Any:
            model = replace(stored, arrays=arrays, counts=counts)
            if way == "save":
                chargen.save_model(self.folder / "made.safetensors", model)
                return chargen.load_model(self.folder / "made.safetensors").vocabulary_size
            if way == "torch":
                return build_model(model).vocabulary_size
            return len(chargen.Sampler(model, seed=1).generate(5))

        return Call(run, {"arrays": stored.arrays, "counts": stored.counts})

    def files(self) -> Call:
        path = self.folder / "model.safetensors"
        if not path.exists():
            chargen.save_model(path, file("gru", True))
        if self.random.random() < 0.3:
            return Call(chargen.load_model, {"path": str(path), "device": "cpu"})
        kind = self.odd.pick([chargen.read_model, chargen.load_model, chargen.Sampler.from_file])
        return Call(lambda path: kind(path), {"path": str(path)})

    def export(self) -> Call:
        stored = file(self.odd.pick(["gru", "lstm"]), True)

        def run(**options: Any) -> Any:
            return chargen.export(stored, self.folder / "exported.onnx", **options).name

        return Call(run, {"direction": "both", "quantize": None})

    def to_torch(self) -> Call:
        stored, ids = file(self.odd.pick(["gru", "lstm"]), True), torch.tensor([[1, 2, 3, 1]])

        def run(direction: Any) -> Any:
            return [tuple(values.shape) for values in chargen.to_torch(stored, direction)(ids)[:1]]

        return Call(run, {"direction": self.odd.pick(["forward", "backward", "both"])})

    def fill(self) -> Call:
        stored = file(self.odd.pick(["gru", "lstm"]), True)

        def run(**options: Any) -> Any:
            return chargen.fill(stored, **options, particles=8).alternatives[0].text

        arguments = {"before": "abc", "after": "ab", "length": 2, "num": 1, "seed": 1}
        return Call(run, arguments, small=("length", "num"))

    def fill_text(self) -> Call:
        stored = file(self.odd.pick(["gru", "lstm"]), True)

        def run(**options: Any) -> Any:
            return [filled.text for filled in chargen.fill_text(stored, **options, particles=8)]

        arguments = {"text": "ab___c___{1}", "length": 2, "marker": "___", "num": 1, "seed": 1}
        return Call(run, arguments, small=("length", "num"))

    def generate(self) -> Call:
        stored = self.file()
        arguments = {"prime": "ab", "length": 6, "num": self.odd.pick([None, 2]), "seed": 1, "temperature": 0.5}
        return Call(lambda **options: chargen.generate(stored, **options), arguments, small=("length", "num"))

    def filler(self) -> Call:
        stored = file("gru", True)

        def run(particles: Any, seed: Any, shortest: Any, longest: Any) -> Any:
            return chargen.Filler(stored, particles=particles, seed=seed).fill("ab", "c", shortest, longest).exact

        return Call(
            run, {"particles": 8, "seed": 1, "shortest": 1, "longest": 2}, small=("shortest", "longest", "particles")
        )

    def score(self) -> Call:
        stored = self.file(True)

        def run(**options: Any) -> Any:
            scores = chargen.score(stored, **options)
            return [score.forward for score in scores] if isinstance(options["text"], str) else [*map(len, scores)]

        by = self.odd.pick(["cloze", "forward"])
        if self.random.random() < 0.3:  # many texts
            texts = {"text": ["abc", "", "b" * 300]}
            if self.random.random() < 0.5:
                lines = {"texts": ["abc", "", "b" * 300], "by": "forward", "unknown": None, "prior": "uniform"}
                return Call(
                    lambda **options: [line.log_prob for line in chargen.score_records(stored, **options)], lines
                )
            return Call(lambda text: [len(scores) for scores in chargen.score(stored, text, by=by)], texts)
        arguments = {"text": "abc\n", "by": by, "threshold": 0.01, "num_alternatives": 2, "unknown": "error"}
        return Call(run, arguments, by_torch(run))

    def novelty(self) -> Call:
        path = self.folder / "corpus.txt"
        path.write_text("abcabd\n" * 30)

        def run(**options: Any) -> Any:
            result = chargen.novelty(**options)
            assert isinstance(result, chargen.Novelty)
            return result.text.longest

        arguments = {"corpus": path, "held_out": (), "shortest": 2, "show": 3, "errors": "strict", "encoding": None}
        if self.random.random() < 0.5:
            writing = {"length": 9, "num": 2, "seed": 1, "temperature": 0.8}
            return Call(run, arguments | {"model_or_text": self.file(True)} | writing, small=("length", "num"))
        return Call(run, arguments | {"model_or_text": "abcbc", "records": None, "text_field": None})

    def inside(self) -> Call:
        """Activations, and what is made of them; `chargen.Activations`, `chargen.Saturation`, `chargen.Neurons`."""
        stored = self.file(True)
        arguments = {"text": "abc\n" * 5, "direction": "forward", "gates": True, "unknown": "skip", "label": None}
        kind = self.odd.pick(["values", "file", "blocks", "gates", "neurons"])
        if kind == "values":
            reference = by_torch(lambda **options: chargen.activations(stored, **options, precision="fp32").last)
            return Call(
                lambda **options: chargen.activations(stored, **options, precision="fp32").last, arguments, reference
            )
        if kind == "file":
            values, path = chargen.activations(stored, "abc"), str(self.folder / "values.npz")

            def save_and_load(path: Any, layer: Any, unit: Any) -> Any:
                values.save(path)
                return chargen.load_activations(path).unit(layer, unit)

            return Call(save_and_load, {"path": path, "layer": 2, "unit": 3}, fixed=("path",))
        if kind == "blocks":
            return Call(
                lambda **options: sum(len(block.text) for block in chargen.stream_activations(stored, **options)),
                arguments | {"size": 7},
            )
        if kind == "gates":
            return Call(
                lambda values: chargen.gate_saturation(values)["update"].left,
                {"values": chargen.activations(file("gru", False), "abc", gates=True)},
            )
        neurons = {"text": "abc\nd e" * 9, "num": 3, "of_each": 2, "direction": "forward", "patterns": {"a": "a"}}
        return Call(
            lambda **options: [str(neuron) for neuron in chargen.rank_neurons(stored, **options)], neurons
        )  # each is a chargen.Neuron

    def inspect(self) -> Call:
        stored = file("gru", self.odd.pick([False, True]))
        arguments = {"text": "abc\nd e" * 9, "length": 7, "patterns": {"a": "a"}, "unknown": "skip", "errors": "strict"}

        def pages(**options: Any) -> Any:
            inspection = chargen.inspect(stored, **options)
            return inspection.page()[-9:], inspection.predictions.log_probs["forward"]

        return Call(pages, arguments)

    def steering(self) -> Call:
        stored = file(self.odd.pick(["gru", "lstm"]), True)

        def run(neurons: Any, direction: Any) -> Any:
            return chargen.set_neurons(stored, neurons, direction).arrays["output.bias"]

        return Call(run, {"neurons": {(1, 3): 0.5, (2, 0): -1.0}, "direction": "forward"})

    def evaluate(self) -> Call:
        stored = self.file()
        model = build_model(stored)

        def run(**options: Any) -> Any:
            return chargen.evaluate(model, stored.vocabulary, **options).nats

        arguments = {"text": "abcabc\n" * 3, "unknown": "error", "rows": self.odd.pick([1, 9]), "direction": "forward"}
        return Call(run, arguments, by_torch(run), small=("rows",))

    def causality(self) -> Call:
        table = self.floats(10, 10).numpy()

        def predict(ids: Any) -> Any:
            return np.concatenate([np.zeros((1, 10)), table[ids[:-1]]])

        arguments = {"vocabulary_size": 10, "sees": "before", "length": 4, "seed": 1}
        return Call(
            lambda **chosen: chargen.check_causality(predict, **chosen), arguments, small=("length", "vocabulary_size")
        )

    def check(self) -> Call:
        stored = small_model("gru", hidden_size=4, num_layers=1, scale=1.0)
        return (
            Call(lambda model: len(chargen.check(model)), {"model": stored})
            if self.random.random() < 0.2
            else self.score()
        )

    def train(self) -> Call:
        if self.random.random() < 0.7:
            return self.batches()
        if self.random.random() < 0.3:
            return self.train_in_one_call()

        def run(text: Any, hidden_size: Any, batch_size: Any, seq_length: Any, dropout: Any, seed: Any) -> Any:
            corpus = chargen.Corpus.from_text(text, valid_fraction=0.2)
            shape = chargen.ModelConfig(num_layers=1, hidden_size=hidden_size, embedding_size=4, dropout=dropout)
            config = chargen.TrainConfig(
                steps=1, batch_size=batch_size, seq_length=seq_length, seed=seed, precision="fp32", device="cpu"
            )
            return [progress.train_loss for progress in chargen.Trainer(corpus, shape, config).run()][-1]

        arguments = {
            "text": "abcd " * 30,
            "hidden_size": 6,
            "batch_size": 9,
            "seq_length": 5,
            "dropout": 0.0,
            "seed": 1,
        }
        return Call(
            run, arguments, by_torch(run), small=("hidden_size", "batch_size", "seq_length"), fixed=("dropout",)
        )

    def train_in_one_call(self) -> Call:
        path = self.folder / "text.txt"
        path.write_text("abcd " * 30)

        def run(**options: Any) -> Any:
            trained = chargen.train(**options, num_layers=1, precision="fp32", device="cpu")
            assert isinstance(trained, chargen.Run)
            return repr(trained)

        sizes = {"steps": 1, "hidden_size": 6, "batch_size": 9, "seq_length": 5, "seed": 1}
        return Call(run, {"sources": str(path), **sizes}, small=tuple(sizes), fixed=("steps",))


KINDS = sorted(name for name in {*vars(ModelCalls), *vars(Calls)} if not name.startswith("_") and name not in
               {"ids", "floats", "model", "file", "rows", "engines", "train_in_one_call"})  # fmt: skip
