"""The names of broken rules and what each costs."""

import enum


class ViolationKind(enum.Enum):
    """What a conforming entity would refuse or RFC 6120 section 11.1 forbids. The value is the name in the log."""

    NOT_WELL_FORMED = "not-well-formed"
    BAD_CHARACTER = "bad-character"  # not allowed in XML, or not UTF-8
    UNDEFINED_ENTITY = "undefined-entity"
    NAMESPACE = "namespace"  # undeclared prefix, reserved prefix or name, an attribute twice
    NAMESPACE_NAME = "namespace-name"  # a namespace name that is no URI; servers do not care, the element is read
    DTD = "dtd"
    COMMENT = "comment"
    PROCESSING_INSTRUCTION = "processing-instruction"
    TEXT = "text-at-stream-level"
    TOO_DEEP = "too-deep"
    PARSER_LIMIT = "parser-limit"  # a limit of libxml2, such as 50 000 octets in one name
    NAMES = "too-many-names"  # more new names than this process may be made to remember
    NESTED_ROOT = "nested-root"
    NOT_A_STREAM = "not-a-stream"  # the root is not stream:stream
    AFTER_END = "after-end"  # octets behind the closing tag
    BYTE_ORDER_MARK = "byte-order-mark"
    ENCODING = "encoding"  # declared or detected, other than UTF-8
    XML_VERSION = "xml-version"
    STANDALONE = "standalone"
    XML_DECLARATION = "xml-declaration"  # malformed, or not at the start
    SPACE_BEFORE_DECLARATION = "space-before-declaration"


class Severity(enum.Enum):
    """What a violation costs."""

    NOTE = "note"  # recorded, once a stream and kind; parsing goes on
    ELEMENT = "element"  # one first-level element was not seen; parsing goes on behind it
    STREAM = "stream"  # nothing more is seen of this direction until a restart
