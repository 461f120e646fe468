"""R2D2 in the tests of training: tiny towers on drawings of the corpus, and its objective literally.

    accelerate launch … tests/training/r2d2_cases.py OUT CACHE     by all processes, written to OUT by the first

The test that launches it calls `step` for one process.
"""

from __future__ import annotations

import copy
import math
import sys
from pathlib import Path

import numpy as np
import torch
from training_cases import Silent, pairs

from vlcli.models.dropout import levels
from vlcli.models.dual import DualEncoder
from vlcli.models.image_tower import ImageFeatures
from vlcli.models.patch_mask import masked_features
from vlcli.models.r2d2 import Pairs, TextStates, image_states
from vlcli.recipes import load_recipe
from vlcli.schemas.pretraining import Recipe
from vlcli.training.processes import rank
from vlcli.training.r2d2 import R2D2Pretraining

ENCODER = (
    "{model_type='bert', vocab_size=21128, hidden_size=32, num_hidden_layers=1, num_attention_heads=2,"
    " intermediate_size=48, max_position_embeddings=40, hidden_act='gelu', layer_norm_eps=1e-12, pad_token_id=0,"
    " hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, type_vocab_size=2}"
)
TINY = (
    "model.dim=16",
    "model.image.init=random",
    "model.image.preprocess.size=64",
    "model.text.width=32",
    "model.text.layers=1",
    "model.text.heads=2",
    "model.text.dropout=0.0",
    f"model.text.encoder={ENCODER}",
    "objective.r2d2.target_distillation.queue=16",
    "data.batch_size=6",
    "data.draw=['text']",
    "data.workers=0",
    "schedule.epochs=3",
    "schedule.warmup_steps=2",
    "train.precision=fp32",
    "train.log_every=1",
    "train.save_every=0",
    "train.evaluate_every=0",
)
RANKING = (
    "model.ranking.heads=2",
    "model.ranking.layers=1",
    "model.ranking.intermediate=48",
    "model.ranking.dropout=0.0",
)
PATCHES = (
    "model.image.name=test_vit",
    "model.patch_mask=true",
    "objective.r2d2.feature_distillation.image=patches",
)
R2D2 = "objective.r2d2"


def recipe(cache: Path, *overrides: str, name: str = "emoji-r2d2") -> Recipe:
    ranking = RANKING if name == "emoji-r2d2" else ()
    return load_recipe(name, [*TINY, *ranking, f"data.cache={cache}", *overrides])


def run_of(cache: Path, out: Path, *overrides: str, name: str = "emoji-r2d2", table=None, **options):
    settled = recipe(cache, *overrides, name=name)
    return R2D2Pretraining(settled, table or pairs(18), out, Silent(), device="cpu", **options)


class Literal:
    """R2D2's objective, one text, one picture, one pair at a time. `shares`: in how many the batch is cut where hard
    negatives are looked for. It has a teacher, a queue and centres of its own."""

    def __init__(self, model: DualEncoder, config, *, seed: int, shares: int = 1) -> None:
        self.model, self.config, self.seed, self.shares = model, config, seed, shares
        self.teacher = copy.deepcopy(model).eval()
        self.queue: list[tuple[torch.Tensor, torch.Tensor, list[int], float]] = []  # the oldest first
        self.centres = {"image": torch.zeros(model.config.dim), "text": torch.zeros(model.config.dim)}

    def hidden(self, model, ids, mask):
        return model.text(ids[None, mask], torch.ones(1, int(mask.sum())).bool())[0]

    def text(self, model, hidden):
        return model.text_projection(hidden[0])

    def features(self, batch, i):
        if batch.features is not None:
            return ImageFeatures(*(x[i : i + 1] for x in batch.features))
        with torch.no_grad():
            return self.model.image(batch.pixels[i : i + 1])

    def parts(self, batch, step):
        model, config = self.model, self.config
        n = len(batch.ids)
        unit = torch.nn.functional.normalize
        feats = [self.features(batch, i) for i in range(n)]
        hidden = [self.hidden(model, batch.ids[i], batch.mask[i]) for i in range(n)]
        v = [unit(model.image_projection(f.pooled[0]), dim=0) for f in feats]
        t = [unit(self.text(model, h), dim=0) for h in hidden]
        with torch.no_grad():
            raw_v = [self.teacher.image_projection(f.pooled[0]) for f in feats]
            raw_t = [
                self.text(self.teacher, self.hidden(self.teacher, batch.ids[i], batch.mask[i]))
                for i in range(n)
            ]
            old_v, old_t = [unit(x, dim=0) for x in raw_v], [unit(x, dim=0) for x in raw_t]
        codes = [[int(batch.codes[k, i]) for k in range(3)] for i in range(n)]

        def same(a, b):
            return any(x == y and x >= 0 for x, y in zip(a, b, strict=True))

        positive = [[same(codes[i], codes[j]) for j in range(n)] for i in range(n)]
        scale = model.scale()
        found = {}

        # pre-ranking
        target = config.target_distillation
        total = 0.0
        for mine, old, ours, theirs, side in ((v, old_v, t, old_t, 1), (t, old_t, v, old_v, 0)):
            columns = theirs if target.enabled and target.columns == "momentum" else ours
            for i in range(n):
                logits = [scale * mine[i] @ columns[j] for j in range(n)]
                taught = [scale.detach() * old[i] @ columns[j].detach() for j in range(n)]
                y = [positive[i][j] / sum(positive[i]) for j in range(n)]
                weights = [1.0] * n
                if target.enabled:
                    for entry in self.queue:
                        if same(codes[i], entry[2]):
                            continue
                        logits.append(scale * mine[i] @ entry[side])
                        taught.append(scale.detach() * old[i] @ entry[side])
                        y.append(0.0)
                        weights.append(entry[3])
                log_s = torch.stack(logits).log_softmax(0)
                soft = torch.stack(taught).softmax(0)
                alpha = target.alpha if target.enabled else 0.0
                for j in range(len(y)):
                    total = total - weights[j] * (alpha * soft[j] + (1 - alpha) * y[j]) * log_s[j] / n / 2
        found["pre_ranking_loss"] = total

        # what is masked
        words, ranks, fgd = config.masked_language, config.matching, config.feature_distillation
        places, masked = [], []
        for i in range(n):
            content = [
                p
                for p in range(batch.ids.shape[1])
                if batch.mask[i, p]
                and int(batch.ids[i, p]) not in (model.tokenizer.cls_id, model.tokenizer.sep_id)
            ]
            scores = levels(batch.keys[i : i + 1], -1, batch.ids[i : i + 1].shape)[0]
            count = max(1, math.floor(0.15 * len(content) + 0.5)) if content else 0
            places.append(sorted(sorted(content, key=lambda p: (-int(scores[p]), p))[:count]))
            ids = batch.ids[i].clone()
            ids[places[i]] = model.tokenizer.mask_id
            masked.append(self.hidden(model, ids, batch.mask[i]))

        # ranking
        if model.ranking is not None:
            enhanced = words.weight and words.enhanced
            own = masked if enhanced else hidden
            other = own if not enhanced or words.masked_negatives else hidden
            seen = [image_states(f)[0] for f in feats]
            draws = np.random.default_rng([self.seed, step, 3]).random((2, n))
            share = n // self.shares

            def hard(scores, i, draw):
                low = i // share * share if ranks.scope == "local" else 0
                high = low + share if ranks.scope == "local" else n
                wrong = [j for j in range(low, high) if not positive[i][j]]
                if not wrong:
                    return None
                if ranks.negatives == "argmax":
                    return max(wrong, key=lambda j: float(scores[j]))
                weights = torch.stack([scores[j] for j in wrong]).double().softmax(0).cumsum(0)
                return next((j for j, w in zip(wrong, weights, strict=True) if draw < w), wrong[-1])

            def pair(text, image):
                states = TextStates(text[None], torch.ones(1, len(text)).bool())
                return model.ranking(states, image[None], Pairs(torch.tensor([0]), torch.tensor([0])))

            losses, weight, guesses = [], 0.0, []
            for i in range(n):
                texts = hard([scale.detach() * v[i].detach() @ x.detach() for x in t], i, draws[0][i])
                images = hard([scale.detach() * t[i].detach() @ x.detach() for x in v], i, draws[1][i])
                todo = [(own[i], seen[i], 1)]
                if texts is not None:
                    todo.append((other[texts], seen[i], 0))
                if images is not None:
                    todo.append((other[i], seen[images], 0))
                for text, image, label in todo:
                    ranked = pair(text, image)
                    if label and enhanced:
                        guesses.append((i, ranked.hidden[0]))
                    w = ranks.positive_weight if label else 1.0
                    for logits in (ranked.text_logits[0], ranked.image_logits[0]):
                        losses.append(-w * logits.log_softmax(0)[label] / 2)
                    weight += w
                if words.weight and not enhanced:
                    guesses.append((i, pair(masked[i], seen[i]).hidden[0]))
            found["matching_loss"] = ranks.weight * sum(losses) / weight
            if words.weight:
                head, table = model.ranking.mask_head, model.word_table
                each = [
                    -head(state[p][None], table)[0].log_softmax(0)[batch.ids[i, p]]
                    for i, state in guesses
                    for p in places[i]
                ]
                found["words_loss"] = words.weight * sum(each) / len(each)

        # features
        if fgd.weight:
            taught = {"text": raw_t} | ({"image": raw_v} if fgd.image == "patches" else {})
            total = 0.0
            for side, teacher in taught.items():
                for i in range(n):
                    if side == "text":
                        student = self.text(model, masked[i])
                    else:
                        m = feats[i].tokens.shape[1]
                        scores = levels(batch.keys[i : i + 1], -2, (1, m))[0]
                        order = sorted(range(m), key=lambda p: (-int(scores[p]), p))
                        hide = torch.zeros(1, m).bool()
                        hide[0, order[: max(1, math.floor(0.15 * m + 0.5))]] = True
                        partial = masked_features(
                            model.image, batch.pixels[i : i + 1], hide, model.patch_mask
                        )
                        student = model.image_projection(partial.pooled[0])
                    aim = ((teacher[i] - self.centres[side]) / fgd.teacher_temperature).softmax(0)
                    guess = (student / fgd.student_temperature).log_softmax(0)
                    total = total - (aim * guess).sum() / n / 2
                m = fgd.centre_momentum
                self.centres[side] = m * self.centres[side] + (1 - m) * sum(teacher) / n
            found["features_loss"] = fgd.weight * total

        if target.enabled:
            self.queue = [(a, b, c, w * target.decay) for a, b, c, w in self.queue]
            self.queue += [(a, b, c, 1.0) for a, b, c in zip(old_v, old_t, codes, strict=True)]
            self.queue = self.queue[-target.queue :] if target.queue else []
        return found

    @torch.no_grad()
    def stepped(self):
        m = self.config.momentum
        for old, new in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            if new.requires_grad:
                old.copy_(m * old + (1 - m) * new)


# Of thirteen pairs six, six and one make an epoch: of the last batch the second process has nothing.
UNEVEN = 13
# Of two processes. Parameters hardly move, so that what is compared of the second step is what the first one queued.
STILL = ("optimizer.lr=1e-7", "schedule.steps=2", "schedule.warmup_steps=0", "model.ranking.dropout=0.2")
CASES = {
    "global": (f"{R2D2}.matching.scope=global", f"{R2D2}.matching.negatives=argmax"),
    "global-drawn": (f"{R2D2}.matching.scope=global", f"{R2D2}.masked_language.masked_negatives=false"),
    "local": (f"{R2D2}.matching.negatives=argmax", f"{R2D2}.masked_language.enhanced=false"),
    "local-drawn": (f"{R2D2}.target_distillation.columns=momentum",),
    "uneven": (f"{R2D2}.matching.scope=global", "data.last=keep", "schedule.steps=3"),
    "uneven-local": ("data.last=keep", "schedule.steps=3"),
    "patches": (*PATCHES, f"{R2D2}.matching.scope=global", f"{R2D2}.target_distillation.enabled=false"),
}


def step(place: Path, cache: Path, *overrides: str) -> dict[str, torch.Tensor]:
    """{"loss", name of a part, name of a parameter: its gradient} of the last step of a run; and what it keeps."""
    table = pairs(UNEVEN) if "data.last=keep" in overrides else None
    run = run_of(cache, place, *STILL, *overrides, table=table)
    found: dict[str, torch.Tensor] = {}
    before = run.stepped

    def after_the_step() -> None:
        before()
        found.update({n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None})

    run.stepped = after_the_step
    run.run()
    found.update({f"centre {side}": x for side, x in run.objective.centres.items()})
    if run.objective.queue is not None:
        found |= {"queue images": run.objective.queue.images, "queue texts": run.objective.queue.texts}
    if rank() == 0:
        values = run.reporter.steps[-1][1]
        found |= {
            name: torch.tensor(x, dtype=torch.float64) for name, x in values.items() if name.endswith("loss")
        }
    return found


if __name__ == "__main__":
    out, cache = map(Path, sys.argv[1:])
    results = {name: step(out / name, cache, *overrides) for name, overrides in CASES.items()}
    if rank() == 0:
        torch.save(results, out / "results.pt")
