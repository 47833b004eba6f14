"""What speaks for each language, with weights: data only.

A weight is a step in log-odds, judged by hand: 3 all but settles it, 1 leans,
below 0 speaks against. A word is written as the scanner yields it: ``name(``
is a call, ``.name`` an attribute, ``^x`` and ``$x`` how a line begins and ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

WORDS: Final[Mapping[str, Mapping[float, str]]] = {
    "python": {
        3.0: 'elif __name__ __init__ __main__ isinstance( nonlocal kwargs ^block f" elif( ^>>>',
        2.5: "print(",
        2.0: "def None True False self cls lambda except len( range( raise pass del",
        1.5: 'enumerate( str( dict( zip( sorted( sum( tuple( list( open( input( .append( .items( .format( """',
        1.0: "assert yield global int( float( set( map( abs( min( max( any( all( not async await .join( .strip( "
        "ValueError TypeError KeyError .startswith( .endswith( .values( .keys( math os sys re np pd ^# ^@",
        0.5: "and with from class as is in try finally return str import",
        0.3: "or for if while else **",
        -1.5: "$;",
        -2.0: "^//",
    },
    "javascript": {
        3.0: "=> === !== console .log( typeof undefined require( .forEach( JSON globalThis .addEventListener( "
        "document window .toUpperCase( .toLowerCase( .prototype setTimeout( parseInt( parseFloat( instanceof .then( "
        ".innerHTML Symbol( isNaN( Number( .charCodeAt( .toFixed( .hasOwnProperty( `${ Math",
        2.5: "null true false .length",
        2.0: "let const var .push( Promise Object Array .charAt( .indexOf( .slice( .substring( .map( "
        ".filter( .reduce( .toString( .exports this throw RegExp Date( switch ... ?? ?. ^export String( BigInt( "
        ".includes( new Uint8Array",
        1.5: "function",
        1.0: "module async await case && || ++ -- delete void Error( default extends catch ! import",
        0.7: "$; ^// ^/*",
        0.5: "class return try finally break do ^}",
        -1.5: "^block",
    },
    "c": {
        3.0: "#include #define #ifdef #ifndef #endif #pragma #undef printf( sizeof malloc( free( size_t ssize_t "
        "typedef scanf( fprintf( memcpy( memset( strlen( strcmp( snprintf( sprintf( puts( putchar( extern uintptr_t "
        "ptrdiff_t FILE int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t __u8 __u16 __u32 __u64 "
        "__s32 __s64 on_record(",
        2.0: "unsigned NULL -> inline register volatile goto union struct #if #else char signed stdin stdout errno "
        "calloc( realloc( argc argv",
        1.5: "int void double float long short",
        1.0: "static enum bool const switch case default do uint u16 u32 u64 s64",
        0.5: "return break else && || ++ -- $; ^// ^/* ^* ^} true false",
        -1.5: "^block",
    },
    "typescript": {
        3.0: "interface readonly keyof declare implements unknown never",
        2.0: "namespace private public protected abstract any enum",
        1.0: "type as string number boolean infer satisfies",
    },
    "cpp": {
        3.0: "std cout cin endl template typename namespace nullptr constexpr virtual override noexcept decltype "
        "static_cast unique_ptr shared_ptr make_unique",
        2.0: ":: class using public private protected vector string auto new operator << >>",
    },
    "rust": {
        3.0: "fn mut impl println!( vec![ format!( panic!( assert_eq!( match pub .unwrap( Vec Option Some( Ok( Err( "
        "crate #[ .iter( .collect( i32 u32 i64 u64 usize f64 eprintln!( Result Box dyn",
        2.0: "-> let use mod trait loop self struct enum",
        1.0: ":: where => String bool $;",
    },
    "go": {
        3.0: "func := package fmt chan defer nil go .Println( .Printf( .Errorf( rune make( map",
        1.0: "struct type var string error int for range import const switch case byte",
    },
    "java": {
        3.0: "System .println( extends implements throws @Override ArrayList HashMap Scanner final",
        2.0: "public private protected static String void boolean Integer interface package",
        1.0: "class new import int double $; this abstract return",
    },
    "csharp": {
        3.0: "using Console .WriteLine( namespace foreach .ReadLine(",
        1.5: "public private static string var class int System void",
    },
    "ruby": {
        3.0: "puts attr_accessor attr_reader .each end unless elsif require_relative nil",
        1.0: "def do module then class ^# require",
    },
    "php": {3.0: "$this $_GET $_POST array(", 1.0: "echo"},
    "bash": {3.0: "fi esac then done [[", 1.0: "echo ^# do export local exit"},
    "lua": {3.0: "local end then nil elseif", 1.0: "do print( return function"},
    "kotlin": {3.0: "fun val println( when", 1.0: "data var null String Int"},
    "swift": {3.0: "func guard Foundation UIKit", 1.0: "let import var nil String Int struct"},
    "zig": {
        3.0: "fn comptime @import @import( anytype errdefer",
        2.0: "std.mem anyerror orelse callconv allocator page_allocator @intCast( @as( ArrayList( noreturn",
        1.0: "pub const var usize u8 i32 i64 u32 u64 f64 try void defer export struct error std .{ unreachable catch",
    },
}

DIALECT_OF: Final[Mapping[str, str]] = {"typescript": "javascript", "cpp": "c"}
"""A dialect has its parent's words too; only its own speak for it rather than for the parent."""

_JS_TYPES: Final = "string number boolean any unknown interface type enum void never"
_C_TYPES: Final = (
    "int void char double float long short bool unsigned size_t struct static int8_t int16_t int32_t int64_t "
    "uint8_t uint16_t uint32_t uint64_t __u8 __u16 __u32 __u64 __s32 __s64 u8 u16 u32 u64 s8 s16 s32 s64"
)

PATTERNS: Final = tuple(
    (frozenset(needs.split()), re.compile(pattern, re.MULTILINE), weights)
    for needs, pattern, weights in (
        # those that run
        ("from", r"^[ \t]*from[ \t]+[\w.]+[ \t]+import\b", {"python": 4.0}),
        ("import", r"^[ \t]*import[ \t]+\w[\w.]*(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:,|#|$)", {"python": 3.0}),
        (
            "import",
            r"^[ \t]*import\b[^\n;]*?['\"][^'\"\n]+['\"]",
            {"javascript": 3.0, "go": 1.0, "python": -4.0},
        ),
        (
            "let const var",
            r"\b(?:let|const|var)[ \t]+(?:\w+|\{[^}\n]*\}|\[[^\]\n]*\])[ \t]*(?:=[^=]|;|,|$)",
            {"javascript": 2.0},
        ),
        (
            _C_TYPES,
            r"^[ \t]*(?:(?:static|inline|extern|const|unsigned|signed|struct)[ \t]+)*"
            r"(?:int|void|char|double|float|long|short|bool|unsigned|size_t|\w+_t|(?:__)?[us]\d+|struct[ \t]+\w+)"
            r"(?:[ \t]+(?:int|long|const))*[ \t*]+\w+[ \t]*\([^;{}()]*\)[ \t]*(?:[{;]|$)",
            {"c": 3.0},
        ),
        (
            _C_TYPES,
            r"\b(?:int|char|double|float|long|short|unsigned|bool|size_t|u?int\d+_t|(?:__)?[us]\d+)[ \t]+"
            r"(?:\*+[ \t]*)?\w+[ \t]*(?:\[[^\]\n]*\][ \t]*)?(?:=[^=]|;|,)",
            {"c": 2.0, "java": 0.5},
        ),
        (_C_TYPES, r"\b(?:int|char|void|double|float|struct[ \t]+\w+)[ \t]*\*+[ \t]*\w+", {"c": 1.5}),
        ("const", r"\bconst[ \t]+\w+[ \t*]+\w+[ \t]*[=;\[]", {"c": 2.0, "javascript": -3.0}),
        ("$;", r"(?:[=(,;&|!]|\breturn)[ \t]*[*&][A-Za-z_]", {"c": 2.0, "javascript": -3.0}),
        ("function", r"\bfunction\b[ \t*]*[\w$]*[ \t]*\([^()]*\)?[ \t]*\{?", {"javascript": 2.0}),
        (
            "{",
            r"(?:\)|\belse|\btry|\bdo)[ \t]*\{",
            {"javascript": 1.5, "c": 1.2, "java": 0.5, "go": 0.5, "python": -2.0},
        ),
        ("{", r"\{\s*[A-Za-z_$][\w$]*[ \t]*:[ \t]", {"javascript": 2.0}),
        ("?", r"[\w)\]'\"][ \t]\?[ \t][^?:\n]+[ \t]:[ \t]", {"javascript": 2.0, "c": 1.0}),
        (_JS_TYPES, r"\b(?:let|const|var)[ \t]+\w+[ \t]*:[ \t]*[\w<>\[\]{} |.]+=", {"typescript": 4.0}),
        (
            _JS_TYPES,
            r"(?:[(,][ \t]*\w+\??|\))[ \t]*:[ \t]*(?:string|number|boolean|any|unknown|void|\w+\[\])(?![\w.])",
            {"typescript": 4.0},
        ),
        (
            _JS_TYPES,
            r"^[ \t]*(?:export[ \t]+)?(?:interface[ \t]+\w+|type[ \t]+\w+(?:<\w+>)?[ \t]*=|enum[ \t]+\w+[ \t]*\{)",
            {"typescript": 4.0},
        ),
        (
            _JS_TYPES,
            r"^[ \t]*\w+\??:[ \t]*(?:string|number|boolean)(?:\[\])?[ \t]*[;,]?[ \t]*$"
            r"|[{;,][ \t]*\w+\??:[ \t]*(?:string|number|boolean)(?:\[\])?[ \t]*[;}]",
            {"typescript": 3.0},
        ),
        (_JS_TYPES, r"\)[ \t]*:[ \t]*(?:Promise|Array|Record|Map|Set|Partial|Readonly)<", {"typescript": 3.0}),
        ("#include", r"^#[ \t]*include[ \t]*<(?!\w+(?:/\w+)*\.h>)\w+>", {"cpp": 5.0}),
        ("extern", r"\bextern[ \t]+\"C\"", {"cpp": 5.0, "rust": 2.0}),
        ("public private protected template", r"^[ \t]*(?:public|private|protected):|\btemplate[ \t]*<", {"cpp": 4.0}),
        (
            "fn impl trait mod let use",
            r"^[ \t]*(?:pub[ \t]+)?(?:fn[ \t]+\w+|impl|trait|mod)\b|\blet[ \t]+mut\b|^[ \t]*use[ \t]+\w+::",
            {"rust": 3.0},
        ),
        ("fn extern", r"\b(?:fn|extern)\b[^;{}\n]{0,200}\)[ \t]*->|#\[\w+", {"rust": 3.0, "cpp": -3.0}),
        (  # a return type without an arrow
            "fn",
            r"\bfn\b[ \t]*\w*[ \t]*\([^()]{0,400}\)[ \t]*(?:callconv\([^()]{0,40}\)[ \t]*)?"
            r"[\w.!?*\[\]]+(?:const[ \t]+\w+|[ \t]\w+)?[ \t]*\{",
            {"zig": 6.0, "rust": -5.0},
        ),
        ("fn const", r"@[a-z]\w*\(|\.\{|\|\w+\|[ \t]*\{", {"zig": 3.0}),
        ("fn", r"^[ \t]*(?:export|inline)[ \t]+fn\b", {"zig": 4.0, "rust": -3.0, "javascript": -3.0}),
        (
            "package func",
            r"^package[ \t]+\w+[ \t]*$|^func[ \t]+(?:\(\w+[ \t]+\*?\w+\)[ \t]*)?\w+\(",
            {"go": 4.0},
        ),
        # those that are named, but not run
        (
            "public import",
            r"\bpublic[ \t]+(?:static[ \t]+)?(?:final[ \t]+)?(?:class|void|int|String)\b|^import[ \t]+java",
            {"java": 4.0},
        ),
        ("using Console", r"^using[ \t]+[\w.]+;|\bConsole\.Write", {"csharp": 4.0}),
        (
            "def do",
            r"^[ \t]*def[ \t]+[\w?!.]+(?:\([^)\n]*\))?[ \t]*$|\bdo[ \t]*\|\w+(?:,[ \t]*\w+)*\|",
            {"ruby": 4.0, "python": -2.0},
        ),
        ("echo", r"\becho[ \t]+[\"'$][^\n]*;[ \t]*$", {"php": 2.0}),
        (
            "echo sudo cd ls mkdir rm cat grep curl wget chmod apt git pip npm docker export cp mv tar",
            r"^[ \t]*(?:echo|sudo|cd|ls|mkdir|rm|cat|grep|curl|wget|chmod|apt|git|pip|npm|docker|export|cp|mv|tar)"
            r"[ \t]+(?!(?:default|const|let|var|function|class|async|in|is|not|and|or)\b)[-\w./~\"'$]+(?![ \t]*[=({.])",
            {"bash": 4.0, "python": -2.0},
        ),
        ("if while then do", r"^[ \t]*(?:if|while)[ \t]+\[\[?[ \t][^\n]*\]|;[ \t]*(?:then|do)\b", {"bash": 4.0}),
        ("local", r"^[ \t]*local[ \t]+(?:function\b|\w+[ \t]*=)", {"lua": 4.0}),
        ("fun val", r"^[ \t]*fun[ \t]+\w+\(|\bval[ \t]+\w+[ \t]*[:=]", {"kotlin": 4.0}),
        (
            "func let var",
            r"^[ \t]*func[ \t]+\w+\([^)\n]*\)[ \t]*->|\b(?:let|var)[ \t]+\w+:[ \t]*[A-Z]\w+",
            {"swift": 3.0},
        ),
    )
)
"""(words of which one must have been seen, the pattern, what a match adds)."""

OPENINGS: Final = (
    ("php", re.compile(r"<\?(?:php|=)")),
    ("html", re.compile(r"<(?:!doctype|html|head|body|div|p|span|svg|script|table|\?xml)\b", re.IGNORECASE)),
    ("markdown", re.compile(r"```")),
    (
        "sql",
        re.compile(
            r"(?:--[^\n]*\n\s*)*(?:select\s+(?:distinct\s+)?[\w*\"'(`][^;=]*?(?:\bfrom\b|;|\Z)|insert\s+into\b"
            r"|create\s+(?:table|view|index)\b|update\s+\w+\s+set\b|delete\s+from\b|drop\s+table\b|alter\s+table\b"
            r"|with\s+\w+\s+as\s*\()",
            re.IGNORECASE,
        ),
    ),
)
"""How a text in each of these begins, which settles it."""
