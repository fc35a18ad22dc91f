"""Xet's content-addressed store over HTTP, as the stock `hf_xet` wheel asks it: blocks of chunks, lists of files.

Written from https://huggingface.co/docs/xet (api, auth, shard, xorb, file-reconstruction, hashing) and, for the upload
by grants of wheels since 1.8, from the readme of https://github.com/huggingface/xet-core (xet_client).
"""
