"""Header blocks, clause by clause of RFC 7541: what weir's decoder takes and refuses, and how its answers are coded."""
import subprocess

from h2_cases import (BODY, CHAT, ECHO, GET, JSON, POST, Case, Client, answers, both, echoes, ends, headers, play, post, reset, resets,
                      settings, waiting)
from hpack import EOS, INCREMENTAL, NEVER, STATIC, WITHOUT, bits, indexed, literal, packed, string, table_size
from harness import smoke
from http2 import (COMPRESSION_ERROR, DATA, END_HEADERS, END_STREAM, HEADER_TABLE_SIZE, PREFACE, PROTOCOL_ERROR, REFUSED_STREAM, frame,
                   head)

FIRST = len(STATIC) + 1  # the newest entry of the dynamic table
KEEP = literal(INCREMENTAL, b"x-kept", b"value")
FULL = literal(INCREMENTAL, b"x-full", b"v" * 4058)  # an entry of 4096 bytes
KEPT = ("x-kept", "value")
FOUR = b"".join(indexed(i) for i in (3, 6)) + literal(WITHOUT, 1, b"localhost") + literal(WITHOUT, 4, b"/v1/audio/x") + \
    literal(WITHOUT, 31, b"application/json")


def bad(name, block, code=COMPRESSION_ERROR, clause="5.2"):
    return Case(f"RFC 7541 {clause}", name, post(1, ECHO + block), ends(code))


def seen(name, block, field=KEPT, clause="6.2", **more):
    return Case(f"RFC 7541 {clause}", name, post(1, ECHO + block), echoes(field), **more)


def in_second(name, first, second, expect, clause="2.3.2"):
    """A block that builds on the one before."""
    return Case(f"RFC 7541 {clause}", name, post(1, ECHO + first) + post(3, ECHO + second), expect)


LITERALS = [seen(f"a literal, {kind}, {'huffman' if huffman else 'plain'}, {'indexed name' if isinstance(name, int) else 'new name'}",
                 literal(code, name, b"value ~{|}<>", huffman), (text, "value ~{|}<>"), clause)
            for clause, kind, code in (("6.2.1", "kept", INCREMENTAL), ("6.2.2", "not kept", WITHOUT), ("6.2.3", "never kept", NEVER))
            for huffman in (False, True) for name, text in ((58, "user-agent"), (b"x-new", "x-new"))]

DECODING = LITERALS + [
    bad("an index beyond the table", indexed(FIRST), clause="2.3.3"),
    bad("an index far beyond", indexed(100000), clause="2.3.3"),
    bad("a name's index beyond the table", literal(WITHOUT, FIRST, b"x"), clause="2.3.3"),
    bad("a kept name's index beyond the table", literal(INCREMENTAL, FIRST, b"x"), clause="2.3.3"),
    bad("an index one too high", KEEP + indexed(FIRST + 1), clause="2.3.3"),
    bad("index 0", indexed(0), clause="6.1"),
    Case("RFC 7541 6.1", "a request of indices", post(1, FOUR), echoes(body=BODY)),
    seen("an entry in the block that made it", KEEP + indexed(FIRST), clause="2.3.2"),
    in_second("an entry in the next block", KEEP, indexed(FIRST), echoes(KEPT, stream=3)),
    in_second("a name in the next block", KEEP, literal(NEVER, FIRST, b"other"), echoes(("x-kept", "other"), stream=3)),
    in_second("the newest comes first", KEEP + literal(INCREMENTAL, b"x-newer", b"1"), indexed(FIRST) + indexed(FIRST + 1),
              echoes(("x-newer", "1"), KEPT, stream=3)),
    in_second("what is not kept", literal(WITHOUT, b"x-a", b"b"), indexed(FIRST), ends(COMPRESSION_ERROR), "6.2.2"),
    in_second("what is never kept", literal(NEVER, b"x-a", b"b"), indexed(FIRST), ends(COMPRESSION_ERROR), "6.2.3"),
    # The table is the connection's: what comes of a block's request changes nothing.
    Case("9113 4.3", "an entry from the trailers", headers(1, ECHO, END_HEADERS) + headers(1, KEEP) + post(3, ECHO + indexed(FIRST)),
         echoes(KEPT, stream=3)),
    Case("9113 4.3", "an entry from a malformed request", headers(1, GET + literal(WITHOUT, b"x y", b"") + KEEP) +
         post(3, ECHO + indexed(FIRST)), both(answers(400), echoes(KEPT, stream=3))),
    Case("9113 4.3", "an entry from a request without a path", headers(1, indexed(2) + KEEP) + post(3, ECHO + indexed(FIRST)),
         both(resets(PROTOCOL_ERROR), echoes(KEPT, stream=3))),
    Case("9113 4.3", "an entry from a refused stream", b"".join(headers(i, POST, END_HEADERS) for i in range(5, 204, 2)) +
         headers(205, POST + KEEP) + reset(5) + reset(7) + post(301, ECHO + indexed(FIRST)),
         both(resets(REFUSED_STREAM, 205), echoes(KEPT, stream=301))),
    seen("an entry too large for the table", KEEP + literal(INCREMENTAL, b"x-big", b"v" * 5000), clause="4.4"),
    bad("an entry that a larger one drove out", KEEP + literal(INCREMENTAL, b"x-big", b"v" * 5000) + indexed(FIRST), clause="4.4"),
    bad("the last but one entry of a full table", KEEP + FULL + indexed(FIRST + 1), clause="4.4"),
    seen("an entry that fills the table", FULL + indexed(FIRST), ("x-full", "v" * 4058), "4.4"),
    seen("a name whose entry is driven out by it", literal(INCREMENTAL, b"x-kept", b"v" * 2000) + literal(INCREMENTAL, FIRST, b"w" * 4000),
         ("x-kept", "w" * 4000), "4.4"),
]

SIZES = [
    Case("RFC 7541 6.3", "a new size first", post(1, table_size(4096) + ECHO + KEEP + indexed(FIRST)), echoes(KEPT)),
    Case("RFC 7541 4.2", "two new sizes first", post(1, table_size(0) + table_size(4096) + ECHO + KEEP + indexed(FIRST)), echoes(KEPT)),
    Case("RFC 7541 6.3", "a size that is too large", post(1, table_size(4097) + ECHO), ends(COMPRESSION_ERROR)),
    Case("RFC 7541 4.2", "a new size last", post(1, ECHO + table_size(0)), ends(COMPRESSION_ERROR)),
    Case("RFC 7541 4.2", "a new size in the middle", post(1, ECHO + table_size(100) + KEEP), echoes(KEPT), "COMPRESSION_ERROR"),
    Case("RFC 7541 4.3", "an entry that a smaller size drove out", post(1, KEEP_BLOCK := table_size(4096) + ECHO + KEEP) +
         post(3, table_size(0) + ECHO + indexed(FIRST)), ends(COMPRESSION_ERROR)),
    Case("RFC 7541 4.3", "an entry that a smaller size just leaves", post(1, KEEP_BLOCK) + post(3, table_size(43) + ECHO + indexed(FIRST)),
         echoes(KEPT, stream=3)),
    Case("RFC 7541 4.3", "one byte less", post(1, KEEP_BLOCK) + post(3, table_size(42) + ECHO + indexed(FIRST)), ends(COMPRESSION_ERROR)),
]

STRINGS = [
    bad("an integer that is cut off", b"\xff\x80", clause="5.1"),
    bad("an integer of five more bytes", b"\xff\x80\x80\x80\x80\x00", clause="5.1"),
    bad("an integer beyond 2^32", b"\xff\xff\xff\xff\xff\x7f", clause="5.1"),
    bad("a length beyond 2^32", b"\0\x7f\xff\xff\xff\xff\x7f", clause="5.1"),
    seen("an integer of more bytes than it needs", b"\x40\x06x-kept\x7f\x86\x00" + b"v" * 133, ("x-kept", "v" * 133), "5.1"),
    bad("a name beyond the block", b"\0\x20x"),
    bad("a value beyond the block", b"\0\1x\x20v"),
    bad("a field without a value", b"\0\1x"),
    bad("a huffman string beyond the block", b"\0\1x\x82\xff"),
    seen("an empty value", literal(INCREMENTAL, b"x-kept", b"") + indexed(FIRST), ("x-kept", "")),
    seen("an empty huffman value", literal(WITHOUT, b"x-kept", b"", True), ("x-kept", "")),
    seen("padding of seven bits", b"\0" + string(b"x-kept") + packed(bits(b"aaaaa") + "1" * 7) + KEEP),
    bad("padding longer than 7 bits", b"\0" + string(b"x-a") + packed(bits(b"aaaaaaaa") + "1" * 8)),
    bad("padding by zeros", b"\0" + string(b"x-a") + packed(bits(b"a") + "000")),
    bad("padding that is not the end's", b"\0" + string(b"x-a") + packed(bits(b"a") + "101")),
    bad("the end of the string inside it", b"\0" + string(b"x-a") + packed(bits([97, EOS]) + "1" * (-len(bits([97, EOS])) % 8))),
    bad("a code that is cut off", b"\0" + string(b"x-a") + packed(bits(b"\0")[:8])),
    seen("every byte that a value may have, by huffman", literal(WITHOUT, b"x-kept", bytes(range(0x21, 0x7f)).replace(b'"', b"")
                                                                 .replace(b"\\", b""), True),
         ("x-kept", bytes(range(0x21, 0x7f)).decode().replace('"', "").replace("\\", "")), "5.2"),
    Case("9113 8.2.1", "a huffman name with a capital", headers(1, GET + literal(WITHOUT, b"X-Up", b"v", True)), answers(400)),
    Case("9113 8.2.1", "a huffman name with a blank", headers(1, GET + literal(WITHOUT, b"x up", b"v", True)), answers(400)),
    Case("9113 8.2.1", "a huffman value with a line feed", headers(1, GET + literal(WITHOUT, b"x-a", b"v\nw", True)), answers(400)),
    Case("9113 8.2.1", "an indexed name with a blank", headers(1, GET + literal(INCREMENTAL, b"x up", b"v")) +
         headers(3, GET + literal(WITHOUT, FIRST, b"v")), both(answers(400), answers(400, 3))),
    Case("9113 8.2.1", "an indexed field with a line feed", headers(1, GET + literal(INCREMENTAL, b"x-a", b"v\nw")) +
         headers(3, GET + indexed(FIRST)), both(answers(400), answers(400, 3))),
]


# ---------------------------------------------------------------- answers

def greeted(*sizes):
    return {"greeting": PREFACE + settings(*[(HEADER_TABLE_SIZE, size) for size in sizes])}


def reads_answers(*sizes):
    """Takes answers, lowering its table to each of `sizes` in between."""
    def check(client):
        stream = 11
        for size in (None, *sizes, None):
            if size is not None:
                client.lower_table(size)
            for block in (ECHO, POST, ECHO):
                client.send(post(stream, block))
                status, data = client.answer(stream)
                assert status == 200 and data, (size, status, data)
                assert client.fields[stream][-1][0] == (":status", "200"), client.fields[stream]
                stream += 2
            assert size is None or client.decoder.size <= size, (size, client.decoder.size)
    return check


def told_before_what_waits(client):
    """A request is under way, another half sent; whichever is answered first, its block begins with the new size."""
    client.answer(9)
    client.lower_table(0)
    client.is_alive(b"lowered!")
    client.send(frame(DATA, END_STREAM, 3, BODY) + post(11, SOON))
    assert client.answer(3)[0] == client.answer(11)[0] == 200
    assert not client.decoder.entries and client.decoder.size == 0


SOON = head("POST", CHAT, [JSON, (b"x-fake", b"events=1,delay_ms=50")])
ANSWERS = [
    Case("RFC 7541 4.2", "a table as large as libh2o's", b"", reads_answers()),
    Case("RFC 7541 4.2", "a larger one", b"", reads_answers(), options=greeted(65536)),
    Case("9113 4.3.1", "no table", b"", reads_answers(0)),
    Case("9113 4.3.1", "a small one", b"", reads_answers(100)),
    Case("9113 4.3.1", "tables of every form of integer", b"", reads_answers(4095, 1000, 158, 31, 30, 1)),
    Case("9113 4.3.1", "one that grows again", b"", reads_answers(50, 4096, 49, 4096)),
    Case("9113 4.3.1", "lowered while requests wait", headers(3, SOON, END_HEADERS) + waiting(7) + post(9), told_before_what_waits),
]


def greets_with(size):
    """The table is lowered by the very first SETTINGS."""
    def check(client):
        client.decoder.allow(size)
        reads_answers()(client)
        assert client.decoder.size <= size
    return check


ANSWERS += [Case("9113 4.3.1", f"a table of {size} from the start", b"", greets_with(size), options=greeted(size))
            for size in (0, 64, 4095)]


@smoke
def test_blocks_are_decoded_or_refused(t):
    _, weir = t.pair()
    play(weir, DECODING + SIZES + STRINGS)


@smoke
def test_answers_keep_to_the_clients_table(t):
    _, weir = t.pair("events=2")
    play(weir, ANSWERS)


def test_small_tables_of_a_real_client(t):
    t.need("nghttp")
    _, weir = t.pair()
    for size in (0, 100, 4095):
        done = subprocess.run(["nghttp", "-v", "-c", str(size), *[f"{weir.url}/livez?{i}" for i in range(5)]], capture_output=True,
                              text=True, timeout=90, check=False)
        assert done.stdout.count(":status: 200") == 5, (size, done.stdout[-3000:])
