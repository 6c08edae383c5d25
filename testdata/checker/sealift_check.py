#!/usr/bin/env python3
"""Independent checker for Sealift bundle files, written from docs/format.md alone.

usage: sealift_check.py BUNDLE             check every byte but the signatures' cryptography
       sealift_check.py BUNDLE.001 BUNDLE.002 ...   the same for volumes, all of them, in their order
       sealift_check.py --manifest BUNDLE  print the manifest's bytes (after the check)
       sealift_check.py --signatures DIR BUNDLE   also write the signature bodies into DIR
       sealift_check.py --make FILE        write a minimal valid bundle without blobs
       sealift_check.py --make-encoded FILE       write one with a layer that is encoded with zstd
       sealift_check.py --make-signed FILE        write the minimal one with slot B active and full of examples

An inactive slot that is not blank is warned of on stderr. Exit code 0 with a summary, or 1 with the reason and the file offset. Standard library only; a test, not shipped.
Blobs with the encoding zstd are decoded by Python's compression.zstd or the program zstd, whichever is there. If
neither is, they are checked as they lie in the file, from frame to frame, and the summary says so.
"""
import base64, datetime, hashlib, json, os, re, shutil, struct, subprocess, sys, tempfile

try:
    from compression import zstd  # Python 3.14
except ImportError:
    zstd = None

MiB, KiB128, SLOT = 1 << 20, 1 << 17, 65536
M64 = (1 << 64) - 1
P1, P2, P3, P4, P5 = (11400714785074694791, 14029467366897019727, 1609587929392839161,
                      9650029242287828579, 2870177450012600261)


class Bad(Exception):
    """The file is not a valid bundle."""

    def __init__(self, why, offset=None):
        super().__init__(why if offset is None else f"offset {offset}: {why}")
        self.offset = offset


def require(ok, why, offset=None):
    if not ok:
        raise Bad(why, offset)


# --- building blocks (format.md, section 3) ---------------------------------------------------------------------------

def xxh64(data):
    def rot(x, r):
        return (x << r | x >> 64 - r) & M64

    n, at = len(data), 0
    if n >= 32:
        a, b, c, d = (P1 + P2) & M64, P2, 0, -P1 & M64
        for at in range(0, n - 31, 32):
            w, x, y, z = struct.unpack_from("<4Q", data, at)
            a = (a + w * P2) & M64; a = ((a << 31 | a >> 33) & M64) * P1 & M64
            b = (b + x * P2) & M64; b = ((b << 31 | b >> 33) & M64) * P1 & M64
            c = (c + y * P2) & M64; c = ((c << 31 | c >> 33) & M64) * P1 & M64
            d = (d + z * P2) & M64; d = ((d << 31 | d >> 33) & M64) * P1 & M64
        at, h = at + 32, rot(a, 1) + rot(b, 7) + rot(c, 12) + rot(d, 18) & M64
        for v in (a, b, c, d):
            h = ((h ^ rot(v * P2 & M64, 31) * P1 & M64) * P1 + P4) & M64
    else:
        h = P5
    h = h + n & M64
    while at + 8 <= n:
        k = rot(int.from_bytes(data[at:at + 8], "little") * P2 & M64, 31) * P1 & M64
        h, at = (rot(h ^ k, 27) * P1 + P4) & M64, at + 8
    if at + 4 <= n:
        k = int.from_bytes(data[at:at + 4], "little") * P1 & M64
        h, at = (rot(h ^ k, 23) * P2 + P3) & M64, at + 4
    for byte in data[at:]:
        h = rot(h ^ byte * P5 & M64, 11) * P1 & M64
    h = (h ^ h >> 33) * P2 & M64
    h = (h ^ h >> 29) * P3 & M64
    return h ^ h >> 32


def u32(x):
    return struct.pack("<I", x)


def frame(p):
    """The one zstd frame for p: raw blocks, window 128 KiB, content size, checksum."""
    blocks = [p[i:i + KiB128] for i in range(0, len(p), KiB128)]
    heads = [(int(i == len(blocks) - 1) | len(b) << 3).to_bytes(3, "little") for i, b in enumerate(blocks)]
    return (b"\x28\xb5\x2f\xfd\x84\x38" + u32(len(p)) + b"".join(h + b for h, b in zip(heads, blocks))
            + u32(xxh64(p) & 0xFFFFFFFF))


def R(n):
    return 14 + n + 3 * -(-n // KiB128)


def pad512(s):
    return -s % 512


def cuts(s):
    """The content lengths of the frames of an entry of s bytes, its header's first."""
    p = s + pad512(s)
    return [512] + [MiB] * (p // MiB) + ([p % MiB] if p % MiB else [])


def E(s):
    return sum(map(R, cuts(s)))


def header(name, size, typeflag=b"0"):
    num = b"%011o\0" % size if size < 1 << 33 else b"\x80\0\0\0" + struct.pack(">Q", size)
    left = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + num + b"%011o\0" % 0
    right = (typeflag + bytes(100) + b"ustar\x0000").ljust(356, b"\0")
    return left + b"%06o\0 " % (sum(left) + sum(right) + 8 * 32) + right


def skippable(magic, body):
    return u32(magic) + u32(len(body)) + body


def slot(bodies=(), trust=()):
    """Slot content: signature entries in the order of their names, each once, trust entries, then the pad record."""
    out = b""
    for body in sorted(set(bodies), key=signature_name):
        out += header(signature_name(body), len(body)) + body + bytes(pad512(len(body)))
    for i, (number, body) in enumerate(trust):
        require(1 <= number <= 1 << 31 and number == trust[0][0] + i, f"trust entry {number} at place {i + 1} in a slot")
        require(len(body) <= 32768, f"trust entry {number} has {len(body)} bytes")
        out += header(f"trust/{number}.root.json", len(body)) + body + bytes(pad512(len(body)))
    n = SLOT - len(out) - 512
    require(n >= 512, "signatures and trust entries do not fit into a slot")
    record = b"%d comment=" % n
    return out + header("pad", n, b"g") + record.ljust(n - 1) + b"\n"


def signature_name(body):
    return "signatures/" + hashlib.sha256(body).hexdigest()[:32] + ".sigstore.json"


def parse_slot(content):
    """What may be the signature bodies and the trust entries (number, body) of a slot's content; the caller compares it
    with the slot() of them."""
    bodies, trust, at = [], [], 0
    while at <= SLOT - 1024:
        name, size = content[at:at + 100].rstrip(b"\0"), content[at + 124:at + 136]
        size = int(size[:11], 8) if re.fullmatch(rb"[0-7]{11}\0", size) else 0
        body = content[at + 512:at + 512 + size]
        number = re.fullmatch(rb"trust/([1-9][0-9]{0,9})\.root\.json", name)
        if name.startswith(b"signatures/"):
            bodies.append(body)
        elif number:
            trust.append((int(number[1]), body))
        else:
            return bodies, trust
        at += 512 + size + pad512(size)
    return [], []


def tables(listed):
    """Check table and seek table from (compressed size, content size, checksum) of every listed frame."""
    check = b"".join(u32(c) for _, _, c in listed)
    seek = b"".join(u32(a) + u32(b) for a, b, _ in listed) + u32(len(listed)) + b"\0\xb1\xea\x92\x8f"
    return skippable(0x184D2A5B, check) + skippable(0x184D2A5E, seek)


# --- the manifest (format.md, section 5) ------------------------------------------------------------------------------

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RELEASE = re.compile(r"(?=.{1,53}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PRE = r"(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)"
SEMVER = re.compile(r"(?=.{5,128}\Z)(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-" + PRE + r"(\." + PRE + r")*)?"
                    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?", re.A)
TIME = re.compile(r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\dZ", re.A)
PLATFORM = re.compile(r"(?=.{1,64}\Z)[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?")
DIGEST, HEX = re.compile("sha256:[0-9a-f]{64}"), re.compile("[0-9a-f]{64}")
MEDIA = re.compile("[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}")
SOURCE = re.compile(r"(?=.{1,512}\Z)[a-zA-Z0-9.-]+(:[0-9]{1,5})?/[a-z0-9][a-z0-9._/-]*"
                    r"(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?")
CHART, ANY = re.compile("[a-zA-Z0-9][a-zA-Z0-9._-]{0,252}"), re.compile("(?s).*")
PLAIN = re.compile("[^\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]*")
NONEMPTY = re.compile(PLAIN.pattern[:-1] + "+")
COSIGNTAG = re.compile(r"sha256-[0-9a-f]{64}\.(sig|att|sbom)")
BASE64 = re.compile("([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)")
TRUE = object()
CHARTVERSION = re.compile("[0-9a-zA-Z][0-9a-zA-Z.+-]{0,127}")
LINES = re.compile(PLAIN.pattern.replace("[^\\x00-", "[^\\x00-\\x09\\x0b-"))
SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
CHARTSOURCE = re.compile(r"(?:oci|https?)://(?!/)[^/@]+(/.*)?", re.S)
FINGERPRINT = re.compile("[0-9A-F]{40}|[0-9A-F]{64}")
KEYOFVALUES = r"(?:[^.\[\]\\]|\\[.\\])+"
VALUEPATH = re.compile(KEYOFVALUES + r"(?:\." + KEYOFVALUES + ")*", re.S)
PART = r"(?!\.\.?(?:/|\Z))[^/\\:]+"
FILENAME = re.compile(PART + "(?:/" + PART + ")*", re.S)
QUANTITY = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?(m|[kMGTPE]|[KMGTPE]i)?")
APIGROUP = re.compile(SUBDOMAIN.pattern.replace(r"\Z", "(?:/|\\Z)").replace(".{1,253}", "[^/]{1,253}") + r"(/" + LABEL.pattern + r"(/[A-Za-z][A-Za-z0-9]{0,62})?)?")
PARAMETER = re.compile("[a-zA-Z][a-zA-Z0-9._-]{0,62}")
TYPES = {"string": re.compile("(?s).*"), "integer": re.compile("0|-?[1-9][0-9]{0,17}"), "boolean": re.compile("true|false"),
         "number": re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?")}
OWN_TYPES = {"application/vnd.sealift.values.v1+yaml", "application/vnd.sealift.file.v1", "text/markdown",
             "application/vnd.sealift.objects.v1+yaml"}


def upto(limit):
    return range(limit + 1)


def descriptor(limit):
    return {"digest": DIGEST, "mediaType": MEDIA, "size": upto(limit)}


# Members in their order; "?" marks those left out when empty; [type, most] is a list, a range an integer.
REASONS = [{"kind": re.compile("spec|chart"), "chart?": PLAIN, "object?": PLAIN, "path?": PLAIN, "way?": PLAIN,
            "confidence?": re.compile("probable"), "variant?": PLAIN, "pattern?": PLAIN}, 4096]
REFERRERS = [{**descriptor(4 * MiB), "subject": DIGEST, "artifactType?": MEDIA, "tag?": COSIGNTAG}, 1024]
IMAGES = [{"source": SOURCE, "artifactType?": MEDIA, **descriptor(4 * MiB), "platforms": [PLATFORM, 4096], "derived?": descriptor(4 * MiB),
           "children?": [{**descriptor(4 * MiB), "platform": PLATFORM}, 65536],
           "referrers?": REFERRERS,
           "referrersDropped?": TRUE,
           "signedBy?": [{"key?": BASE64, "issuer?": PLAIN, "issuerRegExp?": PLAIN, "subject?": PLAIN, "subjectRegExp?": PLAIN,
                          "trustedRoot?": descriptor(MiB)}, 16],
           "reasons": REASONS}, 16384]
CHECKS = [{"name": LABEL,
           "http?": {"service": LABEL, "port": range(1, 65536), "path": re.compile("(?=.{1,1024}\\Z)/[!-~]*"), "status?": range(100, 600), "tls?": TRUE},
           "tcp?": {"service": LABEL, "port": range(1, 65536)}, "job?": descriptor(MiB), "seconds?": upto(86400)}, 64]
VALUES = [{"name": NONEMPTY, "digest": DIGEST, "size": upto(MiB)}, 65536]
MANIFEST = {
    "mediaType": re.compile(r"application/vnd\.sealift\.manifest\.v1\+json"), "format": range(1, 2),
    "head?": range(4096, 32 * MiB + 1, 4096), "name": LABEL, "version": SEMVER, "channel": LABEL, "created": TIME, "expires?": TIME,
    "platforms": [PLATFORM, 4096],
    "images": IMAGES, "artifacts?": IMAGES,
    "ignored?": [{"reference": SOURCE, "pattern": NONEMPTY, "why?": PLAIN, "reasons": REASONS}, 4096],
    "charts": [{"name": CHART, "version": CHARTVERSION, "appVersion?": PLAIN, "source?": PLAIN, "plain?": TRUE, "manifest": descriptor(4 * MiB),
                "archive": descriptor(64 * MiB), "provenance?": descriptor(MiB), "signedBy?": FINGERPRINT, "referrers?": REFERRERS,
                "release": RELEASE, "namespace": LABEL, "dependsOn?": [PLAIN, 1024],
                "values": VALUES,
                "environments?": [{"name": re.compile(f"(?=.{{1,32}}\\Z){LABEL.pattern}"), "values": VALUES}, 32],
                "registryValues?": [{"path": PLAIN, "gets": re.compile("registry|host|prefix")}, 256],
                "rollback?": re.compile("safe|manual|forbidden"),
                "rollout?": {"strategy": re.compile("blueGreen|canary"), "front": {"kind": re.compile("Service|HTTPRoute"), "name": SUBDOMAIN,
                                                                                  "service?": re.compile(r"[a-z0-9-]*\*[a-z0-9-]*"),
                                                                                  "object?": descriptor(64 << 10)},
                             "steps?": [range(1, 100), 99]},
                "checks?": CHECKS}, 1024],
    "files?": [{"name": PLAIN, "digest": DIGEST, "size": upto(1 << 40), "executable?": TRUE}, 32768],
    "notes?": descriptor(MiB),
    "requires?": {"kubernetes?": PLAIN, "upgradeFrom?": PLAIN, "cpu?": QUANTITY, "memory?": QUANTITY,
                  "architectures?": [re.compile("[a-z0-9_]{1,32}"), 64], "storageClasses?": [re.compile(r"\*|" + SUBDOMAIN.pattern), 64],
                  "apiGroups?": [APIGROUP, 64]},
    "parameters?": [{"name": PARAMETER, "description?": LINES, "type": re.compile("string|integer|number|boolean"), "default?": LINES,
                     "required?": TRUE, "secret?": TRUE, "pattern?": PLAIN, "enum?": [PLAIN, 256],
                     "values": [{"release": PLAIN, "path": PLAIN}, 256]}, 256],
    "blobs": [{"digest": DIGEST, "size": upto(1 << 40), "mediaType": MEDIA, "encoding": re.compile("stored|zstd")}, 65536],
    "entries": [{"name": ANY, "size": upto(1 << 40), "sha256": HEX}, 65536],
}


def quote(s):
    return json.dumps(s, ensure_ascii=False).replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def encode(v, t, path="manifest"):
    """The canonical JSON of v, which must be of type t."""
    if isinstance(t, list):
        require(isinstance(v, list) and len(v) <= t[1], f"{path}: not a list of at most {t[1]}")
        return "[" + ",".join(encode(x, t[0], f"{path}[{i}]") for i, x in enumerate(v)) + "]"
    if isinstance(t, dict):
        require(isinstance(v, dict), f"{path}: not an object")
        unknown = set(v) - {k.rstrip("?") for k in t}
        require(not unknown, f"{path}: unknown members {sorted(unknown)}")
        require(all(k in v for k in t if k[-1] != "?"), f"{path}: a member is missing")
        present = [(k.rstrip("?"), k[-1] == "?") for k in t if k.rstrip("?") in v]
        require(all(v[k] not in ("", [], {}, 0) or k == "default" for k, optional in present if optional), f"{path}: empty optional member")
        types = {k.rstrip("?"): x for k, x in t.items()}
        return "{" + ",".join(quote(k) + ":" + encode(v[k], types[k], f"{path}.{k}") for k, _ in present) + "}"
    if t is TRUE:
        require(v is True, f"{path}: not true")
        return "true"
    if isinstance(t, range):
        require(type(v) is int and v in t, f"{path}: not an integer in {t}")
        return str(v)
    require(isinstance(v, str) and t.fullmatch(v), f"{path}: malformed: {v!r}")
    require(t not in (PLAIN, LINES, NONEMPTY) or len(v.encode()) <= 1024, f"{path}: longer than 1024 bytes")
    return quote(v)


def layout_files(m):
    """The two entries that follow from the rest of the manifest: oci-layout and index.json."""
    found, images = [], m["images"] + m.get("artifacts", [])
    for i in images:
        found.append((i, "org.opencontainers.image.ref.name", i["source"]))
        if "derived" in i:
            found.append((i["derived"], "dev.sealift.derived-from", i["digest"]))
    seen = set()
    for i in images + m["charts"]:
        repository = i["source"].split("@")[0] if "reasons" in i else "charts/" + i["name"]
        if "reasons" in i and ":" in repository[repository.rindex("/"):]:
            repository = repository[:repository.rindex(":")]
        for r in i.get("referrers", []):
            named = ("dev.sealift.subject", r["subject"])
            if "tag" in r:
                named = ("org.opencontainers.image.ref.name", repository + ":" + r["tag"])
            if (r["digest"],) + named not in seen:
                seen.add((r["digest"],) + named)
                found.append((r,) + named)
    for c in m["charts"]:
        found.append((c["manifest"], "org.opencontainers.image.ref.name", f"charts/{c['name']}:{c['version']}"))
    items = ",".join('{"mediaType":%s,"digest":%s,"size":%d,"annotations":{%s:%s}}' % (
        quote(d["mediaType"]), quote(d["digest"]), d["size"], quote(k), quote(v)) for d, k, v in found)
    return {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": (
        '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[' + items + "]}").encode()}


def blob_entry(b, e):
    """The entry of a blob. What e says of the bytes that a blob is encoded to is all the freedom there is."""
    name = "blobs/sha256/" + b["digest"][7:]
    if b["encoding"] == "stored":
        return name, b["size"], b["digest"][7:]
    require(e["size"] > 0, f"manifest: entry {name}.zst of 0 bytes")
    return name + ".zst", e["size"], e["sha256"]


def check_site(m, check_referrers, unique):
    """The rules for charts, files, requirements and parameters; returns the descriptors that must be carried."""
    used, before, receives = [], {}, []

    def descriptor_of(d, media_type, what):
        require(d["mediaType"] == media_type, f"manifest: {what} of type {d['mediaType']}")
        used.append(d)

    def value_path(path):
        require(VALUEPATH.fullmatch(path) and len(keys(path)) <= 32, f"manifest: malformed path of a value: {path!r}")
        return path

    def keys(path):
        return [re.sub(r"\\(.)", r"\1", k) for k in re.findall(KEYOFVALUES, path)]

    for c in m["charts"]:
        release = f"{c['namespace']}/{c['release']}"
        require(all(d in before for d in c.get("dependsOn", [])), f"manifest: {release} depends on what does not stand before it")
        unique("dependency", c.get("dependsOn", []))
        before[release] = c
        require("source" not in c or CHARTSOURCE.fullmatch(c["source"]), "manifest: malformed source of a chart")
        unique("environment", [e["name"] for e in c.get("environments", [])])
        require("plain" not in c or not {"source", "provenance", "referrers", "environments"} & set(c), "manifest: origin of plain objects")
        if "provenance" in c:
            descriptor_of(c["provenance"], "application/vnd.cncf.helm.chart.provenance.v1.prov", "provenance")
        require("signedBy" not in c or "provenance" in c, "manifest: a fingerprint without a provenance file")
        check_referrers(c.get("referrers", []), c["manifest"]["digest"])
        receives += [(release, value_path(v["path"])) for v in c.get("registryValues", [])]
        rollout = c.get("rollout", {"strategy": "canary", "front": {"kind": "HTTPRoute"}})
        steps = rollout.get("steps", [])
        require(rollout["front"]["kind"] != "Service" or LABEL.fullmatch(rollout["front"]["name"]), "manifest: malformed name of a Service")
        service = rollout["front"].get("service", "*")
        require(LABEL.fullmatch(service.replace("*", "x")), "manifest: malformed name of the Service of a front")
        if "object" in rollout["front"]:
            require(rollout["front"]["kind"] == "HTTPRoute", "manifest: object of a front that is no HTTPRoute")
            descriptor_of(rollout["front"]["object"], "application/vnd.sealift.objects.v1+yaml", "front")
        require(rollout["front"]["kind"] != "Service" or all(x <= 75 for x in steps), "manifest: share of too many pods")
        require(steps == sorted(set(steps)) and (not steps or rollout["strategy"] == "canary"), "manifest: steps of a rollout")
        unique("check", [k["name"] for k in c.get("checks", [])])
        for k in c.get("checks", []):
            require(len({"http", "tcp", "job"} & set(k)) == 1, f"manifest: check {k['name']} is not of one kind")
            if "job" in k:
                descriptor_of(k["job"], "application/vnd.sealift.objects.v1+yaml", "job")
    names = ["".join(x.lower() if x.isascii() else x for x in f["name"]) for f in m.get("files", [])]
    unique("file", names)
    for n, f in zip(names, m.get("files", [])):
        require(FILENAME.fullmatch(n) and all(len(x.encode()) <= 255 for x in n.split("/")), f"manifest: malformed file name {n!r}")
        used.append({**f, "mediaType": "application/vnd.sealift.file.v1"})
    there = set(names)
    require(not any(n[:i] in there for n in names for i, x in enumerate(n) if x == "/"), "manifest: a file that is a directory, too")
    if "notes" in m:
        descriptor_of(m["notes"], "text/markdown", "notes")
    requires = m.get("requires", {})
    require(all(len(requires.get(k, "").encode()) <= 256 for k in ("kubernetes", "upgradeFrom")), "manifest: range too long")
    for k in ("architectures", "storageClasses", "apiGroups"):
        unique(k, requires.get(k, []))
    unique("parameter", [p["name"] for p in m.get("parameters", [])])
    for p in m.get("parameters", []):
        texts = p.get("enum", []) + ([p["default"]] if "default" in p else [])
        require("default" not in p or "secret" not in p and p["default"] in p.get("enum", [p["default"]]), f"manifest: default of {p['name']}")
        require(all(TYPES[p["type"]].fullmatch(x) for x in texts), f"manifest: type of parameter {p['name']}")
        unique("value of an enum", p.get("enum", []))
        # The patterns are RE2's, which Python does not have: that the texts match them is not checked.
        require("pattern" not in p or p["type"] == "string" and len(p["pattern"].encode()) <= 1024, f"manifest: pattern of {p['name']}")
        for v in p["values"]:
            require(v["release"] in before, f"manifest: parameter {p['name']} of a release that is not there")
            receives.append((v["release"], value_path(v["path"])))
    unique("value that receives something", receives)
    taken = {(r, *keys(path)) for r, path in receives}
    require(not any(t[:i] in taken for t in taken for i in range(2, len(t))), "manifest: a value within one that receives something")
    return used


def parse_manifest(raw):
    require(raw.startswith(b'{"mediaType":"application/vnd.sealift.manifest.v1+json","format":1,'), "not a manifest of format 1")
    try:
        m = json.loads(raw.decode("utf-8"))
        again = encode(m, MANIFEST).encode("utf-8")
    except (ValueError, RecursionError) as e:
        raise Bad(f"manifest: {e}")
    differ = next((i for i, (a, b) in enumerate(zip(again, raw)) if a != b), min(len(again), len(raw)))
    require(again == raw, f"manifest: not canonical at its byte {differ}")

    def unique(what, items):
        require(len(set(items)) == len(items), f"manifest: {what} twice")

    unique("platform", m["platforms"])
    images = m["images"] + m.get("artifacts", [])
    require(len(images) <= 16384, "manifest: too many images and artifacts")
    unique("image", [i["source"] for i in images])
    unique("release", [(c["namespace"], c["release"]) for c in m["charts"]])
    unique("blob", [b["digest"] for b in m["blobs"]])
    require(m["platforms"], "manifest: no platforms")
    for time in [m["created"]] + ([m["expires"]] if "expires" in m else []):
        try:
            year, month, day = map(int, time[:10].split("-"))
            require(year >= 1970, f"manifest: time before 1970: {time}")
            datetime.date(year, month, day)
        except ValueError:
            raise Bad(f"manifest: no such day: {time}")
    carried = {b["digest"]: (b["size"], b["mediaType"]) for b in m["blobs"]}
    charts = {(c["name"], c["version"]): c["manifest"]["digest"] for c in m["charts"]}
    require(all(charts[c["name"], c["version"]] == c["manifest"]["digest"] for c in m["charts"]), "manifest: two charts of one name")
    used = []

    def check_referrers(referrers, about):
        unique("referrer", [(r["subject"], r["digest"], r.get("tag")) for r in referrers])
        for r in referrers:
            require(r["subject"] in about, f"manifest: referrer {r['digest']} is about nothing that stands before it")
            require("tag" not in r or r["tag"].split(".")[0] == r["subject"].replace(":", "-"), "manifest: tag of another subject")
            about.add(r["digest"])
            used.append(r)

    for i in images:
        children, derived = i.get("children", []), i.get("derived")
        unique("platform of an image", i["platforms"])
        unique("child", [c["digest"] for c in children])
        require(i["reasons"], f"manifest: image {i['source']} without reasons")
        require(not derived or children and derived["digest"] != i["digest"], "manifest: derived index without children or equal")
        require("@" not in i["source"] or i["source"].split("@")[1] == i["digest"], "manifest: source pins another digest")
        used += [i] + children + ([derived] if derived else [])
        referrers, about = i.get("referrers", []), {i["digest"]} | {c["digest"] for c in children}
        check_referrers(referrers, about)
        require("referrersDropped" not in i or not referrers and "signedBy" not in i, "manifest: referrers that were dropped")
        for s in i.get("signedBy", []):
            if "key" in s:
                require(set(s) == {"key"} and len(base64.b64decode(s["key"])) <= 1024, "manifest: malformed key of a signer")
                continue
            require(("issuer" in s) != ("issuerRegExp" in s) and ("subject" in s) != ("subjectRegExp" in s) and "trustedRoot" in s,
                    "manifest: a signer is neither a key nor an identity")
            used.append(s["trustedRoot"])
    require(all(i["platforms"] and "artifactType" not in i for i in m["images"]), "manifest: an image without platforms, or an artifact")
    require(all(not i["platforms"] and "artifactType" in i and "derived" not in i for i in m.get("artifacts", [])),
            "manifest: an artifact without a type, or with platforms")
    unique("ignored image", [i["reference"] for i in m.get("ignored", [])])
    require(all(i["reasons"] for i in m.get("ignored", [])), "manifest: an ignored image without reasons")
    used += check_site(m, lambda referrers, digest: check_referrers(referrers, {digest}), unique)
    for c in m["charts"]:
        values = c["values"] + [v for e in c.get("environments", []) for v in e["values"]]
        require(all(len(v["name"].encode()) <= 255 for v in values), "manifest: name of a values file too long")
        used += [c["manifest"], c["archive"]] + [{**v, "mediaType": "application/vnd.sealift.values.v1+yaml"} for v in values]
    for d in used:
        have = carried.get(d["digest"], (None, None))
        require(have[0] == d["size"] and (have[1] == d["mediaType"] or d["mediaType"] in OWN_TYPES), f"manifest: a descriptor without its blob: {d}")
    want = [(n, len(c), hashlib.sha256(c).hexdigest()) for n, c in layout_files(m).items()]
    want += [blob_entry(b, e) for b, e in zip(m["blobs"], m["entries"][2:])]
    require([(e["name"], e["size"], e["sha256"]) for e in m["entries"]] == want and len(want) == 2 + len(m["blobs"]),
            "manifest: entries are not those that its blobs make")
    return m


# --- encoded blobs (format.md, section 5.6) ---------------------------------------------------------------------------

def walk_frames(f, what):
    """Goes over the zstd frames in f (RFC 8878, 3.1), which must be within the rules for encoded blobs."""
    def take(n):
        data = f.read(n)
        require(len(data) == n, f"{what}: a zstd frame is cut short")
        return int.from_bytes(data, "little")

    while head := f.read(4):
        magic = int.from_bytes(head, "little")
        if len(head) == 4 and magic & 0xFFFFFFF0 == 0x184D2A50:
            take(take(4))
            continue
        require(magic == 0xFD2FB528, f"{what}: not a zstd frame")
        descriptor = take(1)
        single, checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
        require(not descriptor & 8, f"{what}: a reserved bit is set")
        w = 0 if single else take(1)
        window = (1 << 10 + (w >> 3)) // 8 * (8 + (w & 7))
        require(take((0, 1, 2, 4)[descriptor & 3]) == 0, f"{what}: a frame needs a dictionary")
        n = (single, 2, 4, 8)[descriptor >> 6]
        content = take(n) + (256 if n == 2 else 0)
        window = content if single else window
        require(window <= MiB, f"{what}: a frame has a window of {window} bytes")
        last = 0
        while not last:
            block = take(3)
            last, kind, size = block & 1, block >> 1 & 3, block >> 3
            require(kind < 3 and size <= KiB128, f"{what}: a malformed block")
            take(1 if kind == 1 else size)
        take(4 * checksum)


def decode(f, blob, what):
    """Decodes f and compares it with the blob. False where there is nothing to decode it with."""
    digest, size, process = hashlib.sha256(), 0, None
    if zstd:
        source = zstd.ZstdFile(f)
    elif shutil.which("zstd"):
        process = subprocess.Popen(["zstd", "-dcq", f"-M{MiB}"], stdin=f, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        source = process.stdout
    else:
        return False
    try:
        # One byte too many is enough to know: what a decoder gives is not believed.
        while size <= blob["size"] and (piece := source.read(min(MiB, blob["size"] + 1 - size))):
            digest.update(piece)
            size += len(piece)
    except (EOFError, zstd.ZstdError if zstd else EOFError) as e:
        raise Bad(f"{what}: {e}")
    finally:
        source.close()
        if process:
            process.wait()
    require(size <= blob["size"], f"{what}: decoded it has more than {blob['size']} bytes")
    require(not process or process.returncode == 0, f"{what}: zstd cannot decode it")
    require(size == blob["size"], f"{what}: decoded it has {size} bytes, must be {blob['size']}")
    require("sha256:" + digest.hexdigest() == blob["digest"], f"{what}: decoded it has the digest sha256:{digest.hexdigest()}")
    return True


# --- the file (format.md, section 4) ----------------------------------------------------------------------------------

def gap_length(manifest_size, head):
    return head - E(manifest_size) - 8 if head else -(E(manifest_size) + 8) % 4096


def total_size(manifest_size, g, entries):
    f = len(cuts(manifest_size)) + 2 + sum(len(cuts(e["size"])) for e in entries) + 1
    return E(manifest_size) + 8 + g + 131122 + sum(E(e["size"]) for e in entries) + R(1024) + (8 + 4 * f) + (8 + 8 * f + 9)


class File:
    """A bundle, or its volumes, being read front to back; everything read is compared with what it must be."""

    def __init__(self, paths):
        self.paths, self.sizes, self.at, self.listed = paths, [os.path.getsize(p) for p in paths], 0, []
        self.rest, self.f, self.size, self.undecoded = list(paths), None, sum(self.sizes), 0

    def place(self, offset):
        """Which volume an offset lies in, if there are several."""
        for path, size in zip(self.paths, self.sizes):
            if offset < size or path == self.paths[-1]:
                return f" (byte {offset} of {path})" if len(self.paths) > 1 else ""
            offset -= size

    def read(self, n):
        data = bytearray()
        while len(data) < n:
            piece = self.f.read(n - len(data)) if self.f else b""
            data += piece
            if not piece:
                if not self.rest:
                    break
                self.f = open(self.rest.pop(0), "rb")
        return bytes(data)

    def check_volumes(self, head):
        """Plain cuts of V bytes each, of which the first holds the whole head (format.md, section 4.7)."""
        v, count = self.sizes[0], len(self.sizes)
        require(count <= 999, f"{count} volumes")
        require(v >= MiB and v >= head, f"{self.paths[0]}: a volume of {v} bytes, less than 1 MiB or than the head, {head}")
        for path, size in zip(self.paths[1:-1], self.sizes[1:-1]):
            require(size == v, f"{path}: {size} bytes, must be {v} as the first volume")
        require(0 < self.sizes[-1] <= v, f"{self.paths[-1]}: {self.sizes[-1]} bytes, must be 1 to {v}")

    def take(self, n, what):
        data = self.read(n)
        require(len(data) == n, f"{what}: the file ends early", self.at + len(data))
        self.at += n
        return data

    def expect(self, got, want, start, what):
        if got != want:
            first = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
            raise Bad(f"{what} differs from what it must be", start + first)

    def frame(self, n, what, listed=True):
        start, raw = self.at, self.take(R(n), what)
        content = b"".join(raw[13 + j:min(13 + j + KiB128, len(raw) - 4)] for j in range(0, len(raw) - 14, KiB128 + 3))
        want = frame(content)
        self.expect(raw, want, start, what)
        if listed:
            self.listed.append((len(raw), n, int.from_bytes(raw[-4:], "little")))
        return content

    def body(self, s, what, sink=lambda content: None):
        """The frames after an entry's header; gives their content to sink and returns its digest."""
        digest, left = hashlib.sha256(), s
        for k, n in enumerate(cuts(s)[1:]):
            start, content = self.at, self.frame(n, f"{what}, frame {k + 1}")
            require(not any(content[left:]), f"{what}: padding is not zero", start)
            digest.update(content[:left])
            sink(content[:left])
            left -= min(n, left)
        return digest.hexdigest()

    def encoded(self, e, blob):
        """The body of an entry that holds a blob encoded with zstd."""
        with tempfile.TemporaryFile(buffering=0) as f:
            digest = self.body(e["size"], e["name"], f.write)
            if digest == e["sha256"]:
                f.seek(0)
                walk_frames(f, e["name"])
                f.seek(0)
                self.undecoded += not decode(f, blob, e["name"])
        return digest


def check(b):
    first = b.frame(512, "header of sealift.json")
    require(re.fullmatch(rb"[0-7]{11}\0", first[124:136]), "header of sealift.json: malformed size")
    size = int(first[124:135], 8)
    b.expect(first, header("sealift.json", size), 10 + 3, "header of sealift.json")
    require(0 < size <= 16 * MiB, f"sealift.json has {size} bytes", 0)
    raw = bytearray()
    b.body(size, "sealift.json", raw.extend)
    raw = bytes(raw)

    start, start_gap = b.at, b.take(8, "gap")
    g = int.from_bytes(start_gap[4:], "little")
    b.expect(start_gap, u32(0x184D2A50) + u32(g), start, "gap")
    require(g <= 32 * MiB, f"gap of {g} bytes", start + 4)
    b.expect(b.take(g, "gap"), bytes(g), start + 8, "gap")
    b.listed += [(8 + g, 0, 0), (131122, SLOT, 0)]

    start, s1 = b.at, b.take(8, "slot switch")
    active = {0: 0, 65561: 1}.get(int.from_bytes(s1[4:], "little"))
    require(s1[:4] == u32(0x184D2A51) and active is not None, "slot switch is malformed", start)
    for name in "AB":
        if name == "B":
            b.expect(b.take(8, "S2"), u32(0x184D2A52) + u32(R(SLOT)), b.at - 8, "S2")
        if name == "AB"[active]:
            start, content = b.at, b.frame(SLOT, f"slot {name}", listed=False)
            signatures, trust = parse_slot(content)
            b.expect(content, slot(signatures, trust), start + 13, f"slot {name}")
        elif b.take(R(SLOT), f"slot {name}") != frame(slot()):
            # Whatever it is: nobody uses it, and a signer that was stopped may have left it.
            print(f"warning: the inactive slot {name} is not blank", file=sys.stderr)

    m = parse_manifest(raw)  # a reader of the product has checked the signatures over raw before this line
    want = gap_length(size, m.get("head"))
    require(g == want, f"gap of {g} bytes, must be {want}", E(size))
    want = total_size(size, g, m["entries"])
    require(b.size == want <= 1 << 46, f"file of {b.size} bytes, must be {want}", min(b.size, want))
    if len(b.paths) > 1:
        b.check_volumes(E(size) + 8 + g + 131122)

    for e, blob in zip(m["entries"], [None, None] + m["blobs"]):
        start, name = b.at, e["name"]
        b.expect(b.frame(512, f"header of {name}"), header(name, e["size"]), start + 13, f"header of {name}")
        digest = b.body(e["size"], name) if not blob or blob["encoding"] == "stored" else b.encoded(e, blob)
        require(digest == e["sha256"], f"{name}: digest {digest}", start)
    start = b.at
    b.expect(b.frame(1024, "end frame"), bytes(1024), start + 13, "end frame")
    start, want = b.at, tables(b.listed)
    b.expect(b.take(len(want), "tables"), want, start, "tables")
    require(not b.read(1), "bytes after the end", b.at)
    return raw, m, signatures, trust


def make(head=0, bodies=(), trust=(), active=0, encoded=(), **members):
    """A bundle without blobs but those in encoded: pairs of a member of blobs and the bytes that it is encoded to."""
    m = {"mediaType": "application/vnd.sealift.manifest.v1+json", "format": 1, **({"head": head} if head else {}),
         "name": "minimal", "version": "1.0.0", "channel": "stable", "created": "2026-01-02T03:04:05Z",
         "platforms": ["linux/amd64"], "images": [], "charts": [], "blobs": [b for b, _ in encoded], **members}
    files = layout_files(m)
    files.update(("blobs/sha256/" + b["digest"][7:] + ".zst", c) for b, c in encoded)
    m["entries"] = [{"name": n, "size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()]
    raw = encode(m, MANIFEST).encode()
    listed, out = [], bytearray()

    def put(content):
        out.extend(frame(content))
        listed.append((R(len(content)), len(content), int.from_bytes(out[-4:], "little")))

    def entry(name, content):
        put(header(name, len(content)))
        padded = content + bytes(pad512(len(content)))
        for i in range(0, len(padded), MiB):
            put(padded[i:i + MiB])

    entry("sealift.json", raw)
    g = gap_length(len(raw), head)
    out += skippable(0x184D2A50, bytes(g))
    ab = [frame(slot(bodies, trust)), frame(slot())][::-1 if active else 1]
    out += u32(0x184D2A51) + u32(65561 if active else 0) + ab[0] + skippable(0x184D2A52, ab[1])
    listed += [(8 + g, 0, 0), (131122, SLOT, 0)]
    for n, c in files.items():
        entry(n, c)
    put(bytes(1024))
    return bytes(out + tables(listed))


def make_encoded():
    """A bundle with one layer, a tar with nothing in it: 10,240 zeros, encoded as one frame of one RLE block."""
    tar = bytes(10240)
    blob = {"digest": "sha256:" + hashlib.sha256(tar).hexdigest(), "size": len(tar),
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "encoding": "zstd"}
    return make(head=8192, encoded=[(blob, bytes.fromhex("28b52ffd 64 0027 034001 00") + u32(xxh64(tar) & 0xFFFFFFFF))])


def make_signed():
    """The minimal bundle, signed again once: slot B is active and holds two signatures (not real ones) and two roots."""
    return make(bodies=[b'{"signature":"one"}', b'{"signature":"two"}'], trust=[(9, b'{"root":9}'), (10, b'{"root":10}')], active=1)


def main(argv):
    usage = __doc__.split("\n\n")[1]
    makers = {"--make": make, "--make-encoded": make_encoded, "--make-signed": make_signed}
    if argv[:1] and argv[0] in makers and len(argv) == 2:
        with open(argv[1], "wb") as f:
            f.write(makers[argv[0]]())
        return 0
    directory, manifest = None, False
    while argv[:1] and argv[0].startswith("--"):
        option = argv.pop(0)
        if option == "--manifest":
            manifest = True
        elif option == "--signatures" and argv:
            directory = argv.pop(0)
        else:
            argv = []
    if not argv or "" in argv:
        print(usage, file=sys.stderr)
        return 1
    b = File(argv)
    try:
        raw, m, signatures, trust = check(b)
    except Bad as e:
        print(f"{argv[0]}: {e}{'' if e.offset is None else b.place(e.offset)}", file=sys.stderr)
        return 1
    for body in signatures if directory else []:
        with open(os.path.join(directory, signature_name(body)[11:]), "wb") as f:
            f.write(body)
    if manifest:
        sys.stdout.buffer.write(raw)
        return 0
    volumes = f" in {len(argv)} volumes" if len(argv) > 1 else ""
    undecoded = f" ({b.undecoded} encoded ones were not decoded: no zstd here)" if b.undecoded else ""
    print(f"{m['name']} {m['version']} sha256:{hashlib.sha256(raw).hexdigest()}: {b.size} bytes{volumes}, {len(b.listed)} frames, "
          f"{len(m['images'])} images, {len(m['charts'])} charts, {len(m['blobs'])} blobs{undecoded}, "
          f"{len(signatures)} signatures, {len(trust)} trust entries (their cryptography was not checked): valid")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
