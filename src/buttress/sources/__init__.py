"""Images in: every collection is a `Source`, indexable, with stable ids. `open_source` takes a URI."""

from buttress.sources.arrays import ArraySource, Relabelled, Subset
from buttress.sources.decode import decode, image_size
from buttress.sources.folder import FolderSource
from buttress.sources.hugging_face import HuggingFaceSource
from buttress.sources.identity import content_hash, fingerprint, id_hash, id_hashes
from buttress.sources.imagenet_sets import ImageNetSet
from buttress.sources.opening import open_source
from buttress.sources.packed import PackedSource
from buttress.sources.parquet import ParquetSource
from buttress.sources.remote_folder import RemoteFolderSource
from buttress.sources.source import Chunks, Sample, Source, UndecodableImage, chunks_of, has_closed_classes
from buttress.sources.tar import TarSource
from buttress.sources.torchvision_sets import TorchvisionSource
from buttress.sources.webdataset import WebDatasetSource

__all__ = [
    "ArraySource",
    "Chunks",
    "FolderSource",
    "HuggingFaceSource",
    "ImageNetSet",
    "PackedSource",
    "ParquetSource",
    "Relabelled",
    "RemoteFolderSource",
    "Sample",
    "Source",
    "Subset",
    "TarSource",
    "TorchvisionSource",
    "UndecodableImage",
    "WebDatasetSource",
    "chunks_of",
    "content_hash",
    "decode",
    "fingerprint",
    "has_closed_classes",
    "id_hash",
    "id_hashes",
    "image_size",
    "open_source",
]
