"""Find where the members of an uncompressed zip archive lie in its file. PyTorch writes such archives."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

from clipita.convert.readers.mapped import MappedFile
from clipita.errors import CheckpointError

# The directory of a thousand storages has 100 KB; in memory it takes ten times its size.
_MAX_DIRECTORY_BYTES = 4 << 20


def members_of(path: Path, file: MappedFile) -> dict[str, tuple[int, int]]:
    """Return where each member lies in the file, once it is sure that none is compressed, damaged or part of another.

    Raises:
        CheckpointError: One is, or the archive is damaged.
    """
    try:
        with _BoundedDirectory(path) as raw, zipfile.ZipFile(raw) as archive:
            infos = archive.infolist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"it is no whole zip archive: {error}") from None
    members: dict[str, tuple[int, int]] = {}
    end_before = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
            raise CheckpointError(f"the archive's {info.filename[:80]!r} is compressed, which PyTorch never does")
        header = file.bytes(info.header_offset, info.header_offset + 30)  # PKWARE's APPNOTE, 4.3.7
        if header[:4] != b"PK\x03\x04":
            raise CheckpointError(f"the archive's {info.filename[:80]!r} does not begin where it should")
        start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
        end = start + info.file_size
        if info.header_offset < end_before or info.filename in members:
            raise CheckpointError(f"the archive's {info.filename[:80]!r} is in it twice, or overlaps another")
        file.check_range(f"the archive's {info.filename[:80]!r}", start, end)
        if zlib.crc32(memoryview(file.data)[start:end]) != info.CRC:
            raise CheckpointError(f"the archive's {info.filename[:80]!r} is damaged: its checksum differs")
        members[info.filename] = (start, end)
        end_before = end
    return members


class _BoundedDirectory(io.FileIO):
    """The file for zipfile, which reads the whole directory at once, however large it claims to be; this bounds it."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does, but refuse more than a directory has."""
        if size is None or size < 0:  # zipfile looks for the directory in the last 64 KB
            return super().read(_MAX_DIRECTORY_BYTES)
        if size > _MAX_DIRECTORY_BYTES:
            raise CheckpointError(f"its zip directory is said to take {size} bytes, more than {_MAX_DIRECTORY_BYTES}")
        return super().read(size)
