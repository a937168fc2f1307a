"""HPACK (RFC 7541): the parts that a raw client puts header blocks together from, and a decoder for the answers."""

# Appendix A, and the lengths of Appendix B's codes; the codes themselves follow from those, for they are canonical.
STATIC = [tuple(field.split("=", 1)) if "=" in field else (field, "") for field in (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|"
    ":status=204|:status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|"
    "accept-encoding=gzip, deflate|accept-language|accept-ranges|accept|access-control-allow-origin|age|allow|"
    "authorization|cache-control|content-disposition|content-encoding|content-language|content-length|"
    "content-location|content-range|content-type|cookie|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|max-forwards|"
    "proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
    "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
).split("|")]
LENGTHS = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28, 6,
    10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20,
    22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22,
    23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23,
    22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21,
    23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
]
EOS = 256


def _codes():
    codes, code, last = {}, 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(LENGTHS)):
        code, last = code << length - last, length
        codes[symbol] = (code, length)
        code += 1
    return codes


CODES = _codes()
SYMBOLS = {(length, code): symbol for symbol, (code, length) in CODES.items()}


class Malformed(Exception):
    """A header block that breaks RFC 7541."""


# ---------------------------------------------------------------- what a client sends

def integer(n, prefix, first=0):
    """5.1; `first` holds the bits before the prefix."""
    most = (1 << prefix) - 1
    if n < most:
        return bytes([first | n])
    out, n = bytearray([first | most]), n - most
    while n >= 128:
        out.append(n % 128 | 128)
        n //= 128
    return bytes(out) + bytes([n])


def bits(symbols):
    return "".join(f"{CODES[s][0]:0{CODES[s][1]}b}" for s in symbols)


def packed(text):
    """A string of bits as a Huffman-coded literal; as it is, so that the padding is the caller's."""
    data = int("1" + text, 2).to_bytes(len(text) // 8 + 1, "big")[1:]
    return integer(len(data), 7, 0x80) + data


def string(text, huffman=False):
    """5.2"""
    if not huffman:
        return integer(len(text), 7) + text
    coded = bits(text)
    return packed(coded + "1" * (-len(coded) % 8))


def indexed(n):
    """6.1"""
    return integer(n, 7, 0x80)


INCREMENTAL, WITHOUT, NEVER = (6, 0x40), (4, 0), (4, 0x10)  # 6.2.1, 6.2.2, 6.2.3


def literal(kind, name, value, huffman=False):
    """A field; `name` is an index or a text."""
    prefix, first = kind
    if isinstance(name, int):
        return integer(name, prefix, first) + string(value, huffman)
    return bytes([first]) + string(name, huffman) + string(value, huffman)


def table_size(n):
    """6.3"""
    return integer(n, 5, 0x20)


# ---------------------------------------------------------------- what it gets

def _unpack(data):
    out, code, length = bytearray(), 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            symbol = SYMBOLS.get((length, code))
            if symbol == EOS:
                raise Malformed("the end of a string inside it")
            if symbol is not None:
                out.append(symbol)
                code, length = 0, 0
    if length > 7 or code != (1 << length) - 1:
        raise Malformed("padding")
    return bytes(out)


class Decoder:
    """Holds the peer to 4.2: a table that was made smaller has to be acknowledged at the start of the next block."""
    def __init__(self):
        self.entries, self.size, self.max, self.must_shrink = [], 4096, 4096, False

    def allow(self, n):
        """The peer has acknowledged that the table may hold `n` bytes."""
        self.max = n
        self.must_shrink = self.must_shrink or n < self.size

    def _shrink(self, n):
        self.size = n
        while sum(len(name) + len(value) + 32 for name, value in self.entries) > n:
            self.entries.pop()

    def _integer(self, data, at, prefix):
        most = (1 << prefix) - 1
        n, at = data[at] & most, at + 1
        if n < most:
            return n, at
        shift = 0
        while True:
            n, shift, at = n + ((data[at] & 127) << shift), shift + 7, at + 1
            if data[at - 1] < 128:
                return n, at

    def _string(self, data, at):
        huffman = data[at] & 128
        n, at = self._integer(data, at, 7)
        if at + n > len(data):
            raise Malformed("a string beyond the block")
        text = data[at:at + n]
        return (_unpack(text) if huffman else text).decode("latin-1"), at + n

    def _entry(self, n):
        if 0 < n <= len(STATIC):
            return STATIC[n - 1]
        if not 0 < n - len(STATIC) <= len(self.entries):
            raise Malformed(f"index {n}")
        return self.entries[n - len(STATIC) - 1]

    def decode(self, block):
        """The fields of a block."""
        fields, at = [], 0
        while at < len(block):
            byte = block[at]
            if byte & 0xe0 == 0x20:
                n, at = self._integer(block, at, 5)
                if fields or n > self.max:
                    raise Malformed(f"a table of {n} bytes, after {fields}")
                self._shrink(n)
                self.must_shrink = False
                continue
            if self.must_shrink:
                raise Malformed("a table that is larger than allowed")
            if byte & 0x80:
                n, at = self._integer(block, at, 7)
                fields.append(self._entry(n))
                continue
            keep = byte & 0x40
            n, at = self._integer(block, at, 6 if keep else 4)
            name, at = (self._entry(n)[0], at) if n else self._string(block, at)
            value, at = self._string(block, at)
            fields.append((name, value))
            if keep:
                self.entries.insert(0, (name, value))
                self._shrink(self.size)
        return fields
