"""How good generated captions are: BLEU-1 to 4, ROUGE-L, CIDEr-D and METEOR, each a file; `score_captions` has all.

The definitions are those of coco-caption, which published numbers come from, without its Java. What a word is decides
such a number as much as the captions do, so that every name says it: `bleu4_char`, `cider_jieba`.
"""
