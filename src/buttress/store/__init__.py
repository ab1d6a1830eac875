"""What the teacher said, on disk: card, codec, parts, reader, writer, verification. Format: docs/format.md."""
