"""Captures by the hundred thousand: layouts, an index of what can be used, shards, and batches made by workers.

index = scan(find_layout(Path("VoxCeleb1")), splits=read_splits(Path("pins_protocol")))
write_index(index, Path("vox1.jsonl.gz"))
corpus = open_corpus(read_index(Path("vox1.jsonl.gz")), FaceSpec(), split="train")   # decodes what is asked for
write_shards(index, Path("shards"), shard_bytes=1 << 30)                              # for what doesn't fit
"""
