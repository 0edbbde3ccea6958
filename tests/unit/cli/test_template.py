"""`--format`: what docker's client prints for the same template and the same value."""

# ruff: noqa: E501 - a template a line

from __future__ import annotations

import pytest

from estiba.cli.parse import UsageError
from estiba.cli.template import compile_template
from estiba.cli.templatevalue import Row

VALUE = {
    "Id": "0123456789ab",
    "Name": "/box",
    "State": {"Status": "running", "Running": True, "Pid": 12},
    "Config": {"Cmd": ["sh", "-c", "x"], "Labels": {"a": "b", "c.d": "e"}, "Entrypoint": None},
    "HostConfig": {"LogConfig": {"Config": {}}},
    "Ports": {"80/tcp": {}},
    "Half": 0.5,
}

PRINTS = [
    ("plain", "plain"),
    ("{{.Name}} {{ .State.Status }}", "/box running"),
    ("{{range .Config.Cmd}}{{if eq . `-c`}}{{break}}{{end}}{{.}}{{end}}", "sh"),
    ("{{range $i, $e := .Config.Cmd}}{{if eq $i 1}}{{continue}}{{end}}{{$e}}{{end}}", "shx"),
    ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a=b;c.d=e;"),
    ("{{range .Config.Nothing}}x{{else}}none{{end}}", "none"),
    ('{{define "x"}}[{{.}}]{{end}}{{template "x" .Name}}', "[/box]"),
    ('{{block "x" .Name}}<{{.}}>{{end}}', "</box>"),
    ("{{with $x := .State}}{{$x.Pid}}{{.Pid}}{{$.Name}}{{end}}", "1212/box"),
    ("{{with .Config.Entrypoint}}a{{else with .Name}}b{{.}}{{end}}", "b/box"),
    ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
    ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
    ("{{if not .State.Running}}a{{else if eq .State.Pid 12}}b{{else}}c{{end}}", "b"),
    ("{{/* c */ -}}   x   {{- /* c */}}", "x"),
    ("a {{- 3}} {{4 -}} b", "a3 4b"),
    (r'{{"a\tb\n\"c\u00e9\x41"}}', 'a\tb\n"céA'),
    ("{{'a'}} {{print 0x1F}} {{1e3}} {{-5}} {{1_000}} {{.5}} {{1234567.5}}",
     "97 31 1000 -5 1000 0.5 1.2345675e+06"),
    ("{{and true 0}} {{or `` `x`}} {{not 1}} {{or .State.Running .State.Nope.No}}", "0 x false true"),
    ("{{eq `a` `b` `a`}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt `b` `a`}} {{ge 1 2}}",
     "true true true true true false"),
    ('{{html "<a>&\\"\'"}} {{js "a<b\'"}} {{urlquery "a b&c/d"}}',
     "&lt;a&gt;&amp;&#34;&#39; a\\u003Cb\\' a+b%26c%2Fd"),
    ('{{printf "%v %d %q %t %x %X %o %b %c %e %g %5.2f" .Name 5 "q" true 255 255 8 5 65 1.5 2.5 3.14159}}',
     '/box 5 "q" true ff FF 10 101 A 1.500000e+00 2.5  3.14'),
    ('{{printf "%-6s|%6d|%+d|%05d|%T|%x|%#x|%%|%*d" "l" 3 3 42 "s" "hi" 255 4 7}}',
     "l     |     3|+3|00042|string|6869|0xff|%|   7"),
    ('{{printf "%s" 5}} {{printf "%d" "a"}} {{printf "%d"}} {{printf "x" 1}} {{printf "%"}}',
     "%!s(int=5) %!d(string=a) %!d(MISSING) x%!(EXTRA int=1) %!(NOVERB)"),
    ('{{printf "%q" .Config.Cmd}} {{printf "%v" .Config.Cmd}}', '["sh" "-c" "x"] [sh -c x]'),
    ("{{index .Config.Labels `c.d`}}{{index .Config.Labels `no`}}{{(index .Config.Cmd 0)}}", "esh"),
    ("{{len .Name}} {{len .Config.Cmd}} {{.Config.Cmd | len}} {{slice .Id 0 4}} {{slice .Config.Cmd 1}}",
     "4 3 3 0123 [-c x]"),
    ("{{join .Config.Cmd `,`}} {{split .Name `o`}} {{title `a bc`}} {{upper `a`}} {{lower `A`}}",
     "sh,-c,x [/b x] A Bc A a"),
    ("{{pad `x` 2 1}}|{{pad `` 1 1}}|{{truncate `abc` 2}}|{{println 1 `a`}}", "  x ||ab|1 a\n"),
    ("{{print `a` `b` 1 2 true `c`}}", "ab1 2 truec"),
    ("{{json .Config.Cmd}} {{json `<&>`}} {{.Config.Cmd | json}}",
     '["sh","-c","x"] "<&>" ["sh","-c","x"]'),
    ("{{.Config.Entrypoint}} {{.Config.Labels}} {{.Ports}} {{.Half}}",
     "[] map[a:b c.d:e] map[80/tcp:{}] 0.5"),
    ("{{.Config.StopTimeout}} {{.Config.Healthcheck}} {{.Config.ExposedPorts}} {{.Config.Shell}}",
     "<nil> <nil> map[] []"),
    ("{{.Config.Labels.no}} {{.HostConfig.LogConfig.Config.no}}", "<no value> <no value>"),
    ("{{range 3}}{{.}}{{end}}", "012"),
]  # fmt: skip

FAILS = [
    ("{{.Nope}}", ':1:2: executing "" at <.Nope>: map has no entry for key "Nope"'),
    ("x\n{{.State.Nope}}", ':2:8: executing "" at <.State.Nope>: map has no entry for key "Nope"'),
    ("{{.Name.Foo}}", ":1:7: executing \"\" at <.Name.Foo>: can't evaluate field Foo in type string"),
    ("{{index .Config.Cmd 10}}",
     ':1:2: executing "" at <index .Config.Cmd 10>: error calling index: index out of range: 10'),
    ("{{eq 1 1.0}}", ":1:2: executing \"\" at <eq 1 1.0>: error calling eq: incompatible types for comparison"),
    ("{{and}}", ':1:2: executing "" at <and>: wrong number of args for and: want at least 1 got 0'),
    ("{{nil}}", ':1:2: executing "" at <nil>: nil is not a command'),
    ("{{range .Name}}{{end}}", ":1:8: executing \"\" at <.Name>: range can't iterate over /box"),
    ('{{template "x"}}', 'template "x" not defined'),
    ("{{$y}}", ':1: undefined variable "$y"'),
    ("{{nope .Name}}", ':1: function "nope" not defined'),
    ("{{.Name", ":1: unclosed action"),
    ('{{"x}}', ":1: unterminated quoted string"),
    ("{{(.Name}}", ":1: unclosed left paren"),
    ("{{if}}x{{end}}", ":1: missing value for if"),
    ("{{}}", ":1: missing value for command"),
    ("{{if .Name}}x", ":1: unexpected EOF"),
    ("{{end}}", ":1: unexpected {{end}}"),
    ("{{break}}", ":1: {{break}} outside {{range}}"),
    ("{{.Name | 3}}", ":1: non executable command in pipeline stage 2"),
    ("a\n\n{{nope}}", ':3: function "nope" not defined'),
]  # fmt: skip


@pytest.mark.parametrize(("template", "text"), PRINTS)
def test_prints(template: str, text: str) -> None:
    assert compile_template(template)(VALUE) == text


@pytest.mark.parametrize(("template", "message"), FAILS)
def test_says_what_is_wrong_and_where(template: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        compile_template(template)(VALUE)
    assert message in str(caught.value)
    assert str(caught.value).startswith("template parsing error: template: :")


def test_rows_have_methods_and_are_json_in_the_order_of_their_keys() -> None:
    row = Row({"Names": "box", "ID": "<a>", "Label": lambda name: f"label of {name}"})
    run = compile_template('{{.Label "x"}} {{json .}}', rows=True)
    assert run(row) == 'label of x {"ID":"\\u003ca\\u003e","Names":"box"}'
    with pytest.raises(UsageError, match="wrong number of args for Label: want 1 got 0"):
        compile_template("{{.Label}}", rows=True)(row)
