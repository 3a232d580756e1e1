// Records what the npm package dotenv reads in .env files, for DotEnvTest. To run, in the root:
// npm install --no-save --prefix target/npm dotenv@18.0.10 && node src/test/js/dotenv.cjs
const fs = require('fs')
const zlib = require('zlib')
const dotenv = require(process.cwd() + '/target/npm/node_modules/dotenv')

const OUT = 'src/test/resources/dotenv/'
const RANDOM_FILES = 10000

// Bytes travel through JSON as a text with one character a byte.
const read = bytes => ({ file: bytes.toString('latin1'), values: { ...dotenv.parse(bytes) } })

// --- chosen files ---

const text = (...lines) => Buffer.from(lines.join('\n'))
const chosen = {
  'empty file': text(''),
  'only blank lines': text('', '  ', '\t', ''),
  'only a comment': text('# NAME=value'),
  'plain values': text('A=basic', 'B=', 'C=3', ''),
  'no newline at the end': text('A=1', 'B=2'),
  'byte order mark': text('\ufeffA=1', 'B=2'),
  'byte order mark before a comment': text('\ufeff# x', 'A=1'),
  'byte order mark before export': text('\ufeffexport A=1'),
  'byte order mark in a later line': text('A=1', '\ufeffB=2', 'C=\ufeff3\ufeff'),
  'Windows line ends': text('A=1\r', 'B="x\r', 'y"\r', 'C=3\r', ''),
  'old Mac line ends': Buffer.from('A=1\rB="x\ry"\rC=3\r'),
  'mixed line ends': Buffer.from('A=1\r\nB=2\rC=3\n\rD=4\r\r\nE=5'),
  'UTF-16': Buffer.from('\ufeffA=1\nB=2\n', 'utf16le'),
  'export': text('export A=1', 'export  B = 2', '\texport\tC="3"', 'exportD=4', 'export=5', 'EXPORT E=6'),
  'export over a line end': text('export', 'A=1', 'export', '', 'B=2'),
  'export without a value': text('export A', 'B=1', 'export export=2', 'export export C=3'),
  'export and a colon': text('export A: 1'),
  'set is not export': text('set A=1', 'declare -x B=2', 'C=3'),
  'spaces around': text('A = 1', ' B=2', '\tC\t=\t3\t', 'D =4', 'E= 5 ', 'F=some spaced out string'),
  'indented lines': text('  A=1', '\t"x"', '    # B=2', '    C=3'),
  'no-break and other wide spaces': text('\u00a0A\u2003=\u30001\u00a0', '\u1680B=\u20282', 'C=x\u0085', '\u180eD=4', 'E=\u200b5'),
  'line separators': text('A=1\u2028B=2\u2029C=3', 'D="x\u2028y"', 'E=x\u2028"y"\u2029\'z\' # c', '# c\u2028F=6'),
  'line separator behind a quote': text('A="x"\u2028y', 'B="x\\"\u2029y', 'C=1'),
  'vertical tab and form feed': text('A\v=\f1', '\fB=2\v'),
  'next line character in a comment': text('A=1 # x\u0085B=2', '# x\u0085C=3'),
  'colon': text('A: 1', 'B:2', 'C : 3', 'D:\t4', 'E:"5"', 'F: "6"', 'G:  # c', 'H: a: b', 'I:=9', 'J=:10'),
  'colon at the line end': text('A:', 'B=2', 'C: ', 'D=4', 'E:', '', 'F=6', 'G:', '# c', 'H:', '"x"'),
  'equals signs in values': text('A=foo=bar', 'B==', 'C===x', 'D=postgres://u:p@h/d?a=b&c=d'),
  'JSON': text('A={"foo": "bar"}', "B='{\"foo\": \"bar\"}'", 'C="{\\"foo\\": \\"bar\\"}"', 'THEME={"color": "#fff"}'),
  'single quotes': text("A='x'", "B=' x '", "C=''", "D='a\\nb'", "E='a\"b'", "F='a`b'", "G='a#b'", "H='it\\'s'"),
  'double quotes': text('A="x"', 'B=" x "', 'C=""', 'D="a\\nb\\rc\\td"', 'E="a\'b"', 'F="a`b"', 'G="a#b"', 'H="a\\"b"'),
  'backticks': text('A=`x`', 'B=` x `', 'C=``', 'D=`a\\nb`', 'E=`a\'b`', 'F=`a"b`', 'G=`a#b`', 'H=`a\\`b`', 'I=`"double" and \'single\'`'),
  'quotes within quotes': text('A="\'x\'"', 'B=\'"x"\'', 'C=`"x"`', 'D="`x`"', 'E=""x""', "F=''x''", 'G="""x"""'),
  'quotes inside a plain value': text('A=it\'s', 'B=a "b" c', 'C=x"', 'D=a`b', 'E="a" and "b"', 'F="a" b', 'G=a "b"', 'H="a"b"c"'),
  'other programs\' lines': text('GREETING="a" and "b"', 'THEME={"color": "#fff"}', 'LS_COLORS=rs=0:di=01;34:', 'PS1="\\u@\\h$ "', 'A=$(date)', 'B=${A:-x}'),
  'quote that is not closed': text('A="x', 'B=2', "C='y", 'D=4', 'E=`z', 'F=6'),
  'quote that is not closed at the end': text('A=1', 'B="'),
  'quote that a later comment closes': text('A="x', 'B=2', 'C=3" # inches', 'D=4'),
  'second definition with an unclosed quote': text('CLIENT_URL=http://a.example', 'CLIENT_URL="http://b.example', 'PORT=42053'),
  'mismatched quotes': text('A="x\'', "B='x\"", 'C=`x"', 'D="x', 'E=x"'),
  'lone quotes': text('A="', "B='", 'C=`', 'D=""', 'E="""', "F='''"),
  'text behind a closing quote': text('A="x" y', 'B="x"y', 'C="x";', 'D="x"#y', 'E="x" #y', "F='x' 'y'", 'G="x"\t'),
  'escaped quotes': text('A="x\\"', 'B="x\\\\"', 'C="x\\" # y', 'D="\\""', 'E="a\\"b\\"c" # d', "F='x\\'", 'G=`x\\``'),
  'escaped quote closes where nothing better does': text('A="x\\" # y', 'B=2', '# z\\"', 'C=3'),
  'last of several escaped quotes': text("A='a\\'", "b\\'", "c\\' d", 'e=5'),
  'backslashes': text('A=\\', 'B="\\\\n"', 'C="\\\\\\n"', 'D=a\\nb', 'E="\\t\\u0041"', 'F="x\\', 'y"', 'G=C:\\dir\\', 'H=9'),
  'backslash at the line end continues nothing': text('A=x\\', 'B=y\\', '  z', 'C=3'),
  'escapes make new escapes': text('A="\\\\r"', 'B="\\\\nr"', 'C="\\\r\\n"'),
  'escapes in a value with an unclosed quote': text('A="x\\ny', 'B=`x\\ny', 'C="a\\nb" c'),
  'multi-line double quotes': text('A="1', '2', '3"', 'B=4'),
  'multi-line single quotes': text("A='1", '2', "3'", 'B=4'),
  'multi-line backticks': text('A=`1', '"2"', "'3'`", 'B=4'),
  'multi-line with what looks like settings': text('A="x', 'B=2', '# c', 'export C=3', '"', 'D=4'),
  'multi-line with blank lines': text('A="', '', 'x', '', '"', 'B=2'),
  'multi-line key': text('K="-----BEGIN PUBLIC KEY-----', 'MIIB+/=', 'AQAB', '-----END PUBLIC KEY-----"', 'B=2'),
  'unquoted key over lines': text('K=-----BEGIN PUBLIC KEY-----', 'MIIB', 'AQAB==', '-----END PUBLIC KEY-----', 'B=2'),
  'value in the next line': text('A=', '"x"', 'B=', 'y', 'C=', '', "  'z'", 'D = ', '', '# c', 'E="', '"'),
  'name and equals sign in two lines': text('A', '=1', 'B', '', ' = 2', 'C', ': 3'),
  'comments': text('A=1 # c', 'B=2#c', 'C="3" # c', 'D="4"#c', "E='#5' # c", 'F=#c', 'G= # c', 'H=a#b#c', '#I=9', ' # J=10', 'K=`11` # `'),
  'comment with quotes': text('A=x # "y"', 'B=\'x\' # it\'s', 'C="x" # "y"', "D='x # y' # 'z'", '# "', 'E=5 # "'),
  'hash in a URL without quotes': text('A=postgresql://u:p#w@h/d', 'B="postgresql://u:p#w@h/d"'),
  'empty values': text('A=', "B=''", 'C=""', 'D=``', 'E= ', 'F=#', 'G: '),
  'duplicate names': text('A=1', 'A=2', 'B=1', 'A=', 'B="3"'),
  'names': text('a=1', 'A.B=2', 'A-B=3', '1=4', '-=5', '.=6', '_=7', 'A B=8', 'Ä=9', 'A$=10', '"A"=11', 'A[0]=12', 'A/B=13'),
  'lines without a setting': text('A', 'B=2', 'secret line', '=4', ': 5', '---', '"C"=6', '- D=7', '{', 'E=8', '}'),
  'YAML': text('services:', '  app:', '    image: x', '    environment:', '      - A=1', 'B: "2"'),
  'shell': text('if [ -z "$A" ]; then', '  export A=1; export B=2', 'fi', 'C=3; D=4', 'E=5 && F=6'),
  'NUL': text('A=a\0b', '\0B=2', 'C\0=3', 'D="\0"'),
  'invalid UTF-8': Buffer.concat([Buffer.from('A='), Buffer.from('ff80c3fe', 'hex'), Buffer.from('\nB="'), Buffer.from('e282', 'hex'), Buffer.from('"\n'), Buffer.from('f09f98', 'hex'), Buffer.from('C=3\nD=x\xe9', 'latin1')]),
  'other scripts': text('A=é', 'B="日本"', 'C=😀 # 😀', "D='😀'"),
  'long values': text('A=' + 'x'.repeat(100000), 'B="' + 'y\n'.repeat(20000) + '"', 'C="' + '\\"'.repeat(20000) + '"', 'D=4'),
  'long names and blanks': text('N'.repeat(5000) + '=1', ' '.repeat(5000) + 'A' + ' '.repeat(5000) + '=' + ' '.repeat(5000) + '2' + ' '.repeat(5000), '\n'.repeat(5000) + 'B=3'),
  'settings of this server': text(
    '# A comment', '', 'export DATABASE_URL="postgresql://app:p%23w@db.internal/app?sslmode=require\\n"',
    "CLERK_SECRET_KEY='sk_test_hidden'", 'NODE_ENV = production  # after a value',
    'CLIENT_URL: https://app.example.com,https://b.example.com', 'PORT=`3001`')
}

// --- random files ---

/** mulberry32: the same numbers everywhere. */
let state = 20261129
const random = n => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) % n
}
const one = list => list[random(list.length)]
const some = (most, make) => Array.from({ length: random(most + 1) }, make).join('')
const u = code => Buffer.from(String.fromCodePoint(code)).toString('latin1')

const odd = ['\0', '\x1f', u(0x85), u(0x180e), u(0x200b), u(0xe9), u(0x1f600), '\xff', '\xc3', '\xe2\x82', '\xf0\x9f\x98', '\xc0\x80', '\xf4\x90\x80\x80']
const wide = [0xa0, 0x1680, 0x2000, 0x2003, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000, 0xfeff].map(u)
const space = () => random(12) ? one([' ', ' ', ' ', '\t']) : one(['\v', '\f', ...wide])
const lineEnd = () => random(8) ? '\n' : one(['\r\n', '\r', '\n\n', '\n\r', u(0x2028), u(0x2029)])
const quote = () => one(['"', "'", '`'])
const name = () => random(8) ? one(['A', 'B', 'C_1']) : one(['a.b', 'A-B', '1', 'export', '-', u(0xe9), 'A B', ''])
const piece = () => one([
  'x', 'y', 'x', '1', ' ', '#', ' # ', '=', ':', ': ', '\\', '\\\\', '\\n', '\\r', '\\\n', quote(), quote(), '\\' + quote(),
  lineEnd, space, () => one(odd), () => name() + '=', 'export '
].map(each => typeof each === 'string' ? () => each : each))()
const body = () => random(60) ? some(4, piece) : one(['x', '\\n', ' ', '\\"']).repeat(300)
const quoted = () => {
  const q = quote()
  return q + body() + (random(6) ? q : one(['', '\\' + q, quote()]))
}
const value = () => one([body, body, quoted, quoted, quoted, () => quoted() + body(), () => ''])()
const definition = () => [
  some(1, space), random(6) ? '' : 'export' + some(2, () => one([space, lineEnd])()), name(), some(1, space),
  random(5) ? '=' : one([':', ': ', '==', '', '\n=']), random(3) ? '' : some(2, () => one([space, lineEnd])()), value(),
  random(4) ? '' : some(1, space) + '#' + body()
].join('')
const line = () => random(6) ? definition() : one([body, () => '#' + body(), () => '', quote, piece])()
const file = () => Buffer.from((random(15) ? '' : u(0xfeff)) + Array.from({ length: 1 + random(4) }, line).join(lineEnd()) + some(1, lineEnd), 'latin1')

const files = Array.from({ length: RANDOM_FILES }, () => read(file()))
fs.writeFileSync(OUT + 'random.json.gz', zlib.gzipSync(JSON.stringify(files), { level: 9 }))
const named = Object.entries(chosen).map(([name, bytes]) => ({ name, ...read(bytes) }))
// Long runs of one text are kept apart, compressed, so that the rest can be read.
const isLong = each => each.file.length > 5000
fs.writeFileSync(OUT + 'chosen.json', JSON.stringify(named.filter(each => !isLong(each)), null, 1) + '\n')
fs.writeFileSync(OUT + 'long.json.gz', zlib.gzipSync(JSON.stringify(named.filter(isLong)), { level: 9 }))
