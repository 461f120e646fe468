"""A prior measured without pictures: how often what it makes of a text is nearest to the text's picture.

python prior.py CLIP PRIOR --train PAIRS --gallery PAIRS [--steps N] [--guidance X ...]

Prints recalls from text to image in the gallery of the text's own embedding, of a linear regression from text to image
embeddings (ridge, on the training pairs, its penalty by a tenth of them that is held out), and of the embeddings that
the prior draws: with several guidances one, and the likeliest of two, and without guidance the mean of sixteen; and the
mean cosine with the picture's embedding, which all but the first aim at. A draw is one of the pictures that a text may
have, the mean is what they have in common, as a regression's is. Features of images are those that training has kept.
"""

import argparse

import torch
import torch.nn.functional as F

import vlcli
from vlcli.evaluation.embed import embed_texts, similarity_of
from vlcli.evaluation.gallery import Gallery
from vlcli.evaluation.retrieval import retrieval
from vlcli.generation.pictures import noise_of
from vlcli.generation.unclip import as_encoder, likeliest_embeddings, refuse_strangers, text_condition
from vlcli.models.checkpoint import load_prior
from vlcli.models.dual import ImageTokens, TextTokens
from vlcli.schemas.parts import DataConfig
from vlcli.shards.pairs import load_pairs
from vlcli.training.image_embeddings import ImageEmbeddings

MEAN_OF = 16
PENALTIES = [10.0**power for power in range(-4, 4)]


def ridge(texts, images, penalty):
    """Weights (d + 1, d) of the least squares from texts (n, d) to images, the last row the intercept."""
    x = torch.cat([texts, torch.ones(len(texts), 1)], 1).double()
    square = x.T @ x + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    square[-1, -1] -= penalty
    return torch.linalg.solve(square, x.T @ images.double()).float()


def applied(weights, texts):
    return F.normalize(torch.cat([texts, torch.ones(len(texts), 1)], 1) @ weights, dim=-1)


def regression(texts, images):
    """The weights of the penalty that is best on every tenth pair, from all pairs."""
    held = torch.arange(len(texts)) % 10 == 0

    def error(penalty):
        weights = ridge(texts[~held], images[~held], penalty)
        return -float((applied(weights, texts[held]) * images[held]).sum(1).mean())

    penalty = min(PENALTIES, key=error)
    return ridge(texts, images, penalty), penalty


def prior_draws(clip, prior, texts, steps, guidance, seeds):
    """The likeliest of the embeddings that `seeds` draw."""
    drawn = []
    for start in range(0, len(texts), 64):
        some = texts[start : start + 64]
        told = text_condition(clip, *clip.tokenize(some))
        noises = [noise_of(seed, some, (prior.config.dim,)) for seed in seeds]
        drawn.append(likeliest_embeddings(prior, told, noises, steps=steps, guidance=guidance))
    return torch.cat(drawn)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip")
    parser.add_argument("prior")
    parser.add_argument("--train", required=True)
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--guidance", type=float, nargs="*", default=(1.0, 2.0, 4.0))
    options = parser.parse_args()

    clip, prior = as_encoder(vlcli.load(options.clip)), load_prior(options.prior)
    refuse_strangers(clip, prior=prior)
    train, table = load_pairs([options.train]), load_pairs([options.gallery])
    gallery = Gallery.of(table)
    embeddings = ImageEmbeddings(clip, DataConfig(), precision="fp32")
    images = ImageTokens(None, embeddings.at(embeddings.add(table)[gallery.image_rows]))
    texts = embed_texts(clip, gallery.texts)
    weights, penalty = regression(
        embed_texts(clip, [some[0] for some in train.texts]).pooled, embeddings.at(embeddings.add(train))
    )
    found = {"the text's own embedding": texts.pooled}
    found[f"ridge regression, penalty {penalty:g}"] = applied(weights, texts.pooled)
    for guidance in options.guidance:
        name = f"prior, {options.steps} steps, guidance {guidance:g}"
        how = clip, prior, gallery.texts, options.steps, guidance
        found[name] = prior_draws(*how, [0])
        found[f"{name}, likeliest of 2"] = prior_draws(*how, [0, 1])
        if guidance == 1:
            draws = [found[name], *(prior_draws(*how, [seed]) for seed in range(1, MEAN_OF))]
            found[f"{name}, mean of {MEAN_OF}"] = F.normalize(sum(draws), dim=-1)
    shown = [(i, column) for i, columns in enumerate(gallery.positives) for column in columns]
    rows, columns = map(list, zip(*shown, strict=True))
    print(
        f"| text → image, {len(gallery.image_ids)} images | R@1 | R@5 | R@10 | cosine |\n|---|---|---|---|---|"
    )
    for name, vectors in found.items():
        none = torch.empty(len(vectors), 0, dtype=torch.bool)
        said = TextTokens(None, none, none, vectors)
        recall = retrieval(similarity_of(clip), images, said, gallery.positives, bootstrap=0)["t2i"]
        cosine = float((images.pooled[rows] * vectors[columns]).sum(1).mean())
        numbers = " | ".join(f"{recall[f'R@{k}']:.1f}" for k in (1, 5, 10))
        print(f"| {name} | {numbers} | {cosine:.3f} |", flush=True)


if __name__ == "__main__":
    main()
