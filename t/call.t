#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# call.t - vfun call by signatures: arguments from words, lists, files and .npy; results as text, JSON, bytes and .npy; what
# doesn't fit; sets before a get; on the host and in a guest
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

requires('root', 'qemu', 'kernel');

my $shapes = program('shapes');
my @names = qw(matrix pair cube packed late behind seven range rows digest fixed none keep join);
my $d = Vfun->new(conf => join('', map { "[function $_]\nbackend = program\nprogram = $shapes\n" } @names)
		. "[host]\nfunctions = @names\n[vm demo]\nfunctions = @names\nivshmem = 64M\n");
ok($d->up, 'vfund starts') or BAIL_OUT($d->log);
$ENV{VFUN_RUN_DIR} = $d->{run};
sub call { return vfun('call', @_); }

# A .npy file: this header, these bytes
sub npy {
	my ($name, $dict, $data, $version) = @_;
	my $length = ($version // 1) > 1 ? 'V' : 'v';
	my $head = length(pack($length, 0)) + 8 + length($dict) + 1;
	$dict .= ' ' x (-$head % 64) . "\n";
	return spew(tmp($name), "\x93NUMPY" . pack('CC', $version // 1, 0) . pack($length, length $dict) . $dict . $data);
}
sub dict { return "{'descr': '$_[0]', 'fortran_order': " . ($_[2] // 'False') . ", 'shape': $_[1], }"; }

# What goes in, and what is printed
my $m = npy('m.npy', dict('<f4', '(2, 3)'), pack 'f<6', 1, 2, 3, 4, 5, 6.5);
my $m2 = npy('m2.npy', dict('<f4', '(2, 3)'), pack('f<6', 1, 2, 3, 4, 5, 6.5), 2);
my $raw = spew(tmp('raw'), pack 'f<6', 1, 2, 3, 4, 5, 6.5);
my $json = spew(tmp('m.json'), "[[1, 2, 3],\n [4, 5, 6.5]]\n");
my $table = spew(tmp('m.txt'), "1 2 3\n4 5 6.5\n");
my $words = spew(tmp('words'), pack 'V3', 7, 8, 9);
my $both = spew(tmp('both'), pack 'q<2v2', -1, 2, 3, 4);
for my $from ('[[1,2,3],[4,5,6.5]]', '[ [1,2 ,3] , [ 4 5 6.5 ] ] ', '1,2,3,4,5,6.5', '1 2 3 4 5 6.5', '[1,2,3,4,5,6.5]', "\@$m", "\@$m2", "\@$raw",
	"\@$json", "\@$table")
{
	my $r = call('matrix', 2, $from);
	is($r->{out}, "[[1,2,3],[4,5,6.5]]\n", 'a matrix from ' . $from =~ s/.*\///r) or diag($r->{err});
}
for my $case (
	["c: [0,128,255]\nd: [-1,32767]", 'pair', '[0,128,255]', '[-1,32767]'],
	["c: [1,2,3]\nd: []", 'pair', '[1,2,3]', '[]'],
	['[[[1,2,3],[4,5,6]],[[7,8,9],[0.1,-1e+300,1e-300]]]', 'cube', '[[[1,2,3],[4,5,6]],[[7,8,9],[0.1,-1e300,1e-300]]]'],
	['[]', 'cube', '[]'],
	['[[[nan,inf,-inf],[0,-0,1.7976931348623157e+308]]]', 'cube', '[[[nan,inf,-inf],[0,-0,1.7976931348623157e308]]]'],
	['c: [-9223372036854775808,9223372036854775807]' . "\n" . 'd: [1,65535]', 'packed', '[-9223372036854775808,9223372036854775807]', '1,65535'],
	['[7,8,9]', 'behind', -5, '7,8,9'],
	['[7,8,9]', 'behind', 5, "\@$words"],
	['21', 'seven', 1, -2, '3.5', 4, -5, '12.5'],
	['15', 'seven', 1, -2, '3.5', 4, -5, '12.5', 1],
	["r: -0.5\ns: -1", 'range', '-.5'],
	["r: 1.5\ns: -3", 'range', '1.5', -3],
	['[[0,1],[2,3],[4,5]]', 'rows', 2],
	["sum: 0102abff\nn: 3\nint: 18446744073709551616", 'digest', '[1,2,3]'],
	['beef', 'fixed', '[1,2,3]'],
	['', 'none', 3],
	["[[11,22],[33,66]]", 'keep', 2, '[[1,0],[2,0]]', '[[5.5,1],[16.5,1]]'],
	["[[11,22],[33,66]]", 'keep', 'set', 2, '[[1,0],[2,0]]', 'get', '[[5.5,1],[16.5,1]]'],
	["[[3]]", 'keep', 'set', 2, '[[1,0],[2,0]]', 'set', 1, '[[3,0]]', 'get', '[[1,1]]'],
	)
{
	my ($want, @args) = @$case;
	my $r = call(@args);
	is($r->{out}, $want eq '' ? '' : "$want\n", "@args") or diag($r->{err});
	is($r->{err}, '', 'without a word') if $r->{err};
}
# Bytes
spew(tmp('bytes'), join '', map { chr } 0 .. 255);
is(call('late', tmp('bytes'))->{out}, slurp(tmp('bytes')), 'bytes, a number with a default before them');
is(call('late', 3, tmp('bytes'))->{out}, slurp(tmp('bytes')), 'which is given');
is(call('late', tmp('bytes'), 3)->{out}, slurp(tmp('bytes')), 'or behind the file, as it used to be');
is(call('behind', tmp('words'), 2)->{out}, slurp(tmp('words')), 'a plain file first: results as they are');
is(call('packed', $both)->{out}, pack('q<2', -1, 2) . "\0" x 48 . pack('v2', 3, 4), 'a plain file has all arrays, results are as the room has them');
is(run([$VFUN, 'call', 'behind', 2, '@-'], stdin => slurp(tmp('words')))->{out}, "[7,8,9]\n", 'standard input');
is(call('join', 'set', tmp('bytes'), 'set', '[1,2]', 'set', '[]', 'get', 2)->{out}, (slurp(tmp('bytes')) . "\1\2") x 2, 'three sets, and a get with a number');
is(call('join', 'set', '[65]', 'set', '[66]')->{out}, 'AB', 'a get without arguments needs not be written');
is(call('join', '[65]')->{out}, 'A', 'nor, with one set, the words');

# JSON
my @json = (
	[['cube', '[[[nan,1,0.1],[2,3,4]]]'], [[[undef, 1, 0.1], [2, 3, 4]]]],
	[['pair', '[1,2,3]', '[-1]'], { c => [1, 2, 3], d => [-1] }],
	[['digest', '[1]'], { sum => '0102abff', n => 1, int => '18446744073709551616' }],
	[['range', 1], { r => 1, s => -1 }],
	[['late', '[1,2]'], [1, 2]],
	[['fixed', '[]'], 'beef'],
	[['none', 1], undef],
);
for my $case (@json) {
	my $r = call('-j', @{ $case->[0] });
	is_deeply(eval { decode_json($r->{out})->{result} }, $case->[1], "-j @{ $case->[0] }") or diag($r->{out}, $r->{err});
}

# -o
is(call('matrix', 2, "\@$m", '-o', tmp('out.npy'))->{status}, 0, '-o .npy');
is(call('matrix', 2, '@' . tmp('out.npy'))->{out}, "[[1,2,3],[4,5,6.5]]\n", 'which can be an argument again');
is(slurp(tmp('out.npy')), slurp($m), 'and is what NumPy writes');
is(call('matrix', 2, "\@$m", '-o', tmp('out'))->{status}, 0, '-o FILE');
is(slurp(tmp('out')), slurp($raw), 'bytes');
is(call('matrix', 2, "\@$m", '-o', tmp('out.json'))->{status}, 0, '-o .json');
is_deeply(decode_json(slurp(tmp('out.json'))), [[1, 2, 3], [4, 5, 6.5]], 'text');
is(call('digest', '[1]', '-o', tmp('out.txt'))->{status}, 0, '-o .txt');
is(slurp(tmp('out.txt')), "sum: 0102abff\nn: 1\nint: 18446744073709551616\n", 'all results');

# What doesn't fit: the exit status, a sentence
sub npy_case { return '@' . npy('case.npy', @_); }
my $data = pack 'f<6', 1 .. 6;
for my $case (
	[1, qr/matrix .*: n: 0 is not 1\.\.100$/, 'matrix', 0, '[]'],
	[1, qr/a: 20 bytes: no whole m$/, 'matrix', 2, '1,2,3,4,5'],
	[1, qr/a: its shape is not that of the signature$/, 'matrix', 3, '[[1,2,3],[4,5,6]]'],
	[1, qr/a: its shape/, 'matrix', 3, "\@$m"],
	[1, qr/a: its shape/, 'matrix', 1, '[[[1,2]]]'],
	[1, qr/a: 2 bytes, not 3$/, 'pair', '[1,2]', '[1,2]'],
	[1, qr/2 bytes, not|no whole n/, 'packed', '[1,2,3]', '[1]'],
	[1, qr/k: 6 is not -5\.\.5$/, 'behind', 6, '[1]'],
	[1, qr/x: 1\.6 is not -1\.5\.\.1\.5$/, 'range', '1.6'],
	[1, qr/x: nan is not -1\.5\.\.1\.5$/, 'range', 'nan'],
	[1, qr/d: 256 is not 0\.\.255$/, 'seven', 1, 2, 3, 256, 5, 6],
	[2, qr/matrix: too many|not a number|numbers/, 'matrix', 1, '[1]', 'x'],
	[2, qr/'x' is not a number$/, 'range', 'x'],
	[2, qr/'1\.5' is not a number from -2\^63 to 2\^63-1$/, 'range', 1, '1.5'],
	[2, qr/a: '256': not a number of type u8$/, 'pair', '[1,2,256]', '[1]'],
	[2, qr/'-32769': not a number of type i16$/, 'pair', '[1,2,3]', '[-32769]'],
	[2, qr/'1e39': not a number of type f32$/, 'matrix', 1, '1e39'],
	[2, qr/'x': not a number/, 'matrix', 1, '[x]'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[1,2'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[1,[2]]'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[[[]]1,3]'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[[1,2],[3]]'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[1],2'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[1,,2]'],
	[2, qr/^vfun call: a: /, 'matrix', 1, '[[[[[1]]]]]'],
	[2, qr/nosuch\.npy: No such file/, 'matrix', 1, '@' . tmp('nosuch.npy')],
	[2, qr/needs an array.*: a$/, 'matrix', 1],
	[2, qr/case\.npy: /, 'matrix', 2, npy_case(dict('<f8', '(2, 3)'), $data)],
	[2, qr/a\.npy: .*not a|isn't a \.npy/, 'matrix', 2, '@' . spew(tmp('a.npy'), 'x' x 100)],
	[2, qr/out\.npy: a \.npy file has one array/, 'pair', '[1,2,3]', '[1]', '-o', tmp('out.npy')],
	[2, qr/-o FILE/, '-j', 'behind', tmp('words'), 2],
	[2, qr/nothing follows get/, 'join', 'set', '[1]', 'get', 1, 'set', '[1]'],
	[2, qr/needs a file.*: part$/, 'join', 'set', 'set', '[1]'],
	[1, qr/q: 12 bytes: no whole m$/, 'keep', 2, '[[1,0]]', '[1,2,3]'],
	)
{
	my ($status, $text, @args) = @$case;
	my $r = call(@args);
	is($r->{status}, $status, "$status: @args" =~ s/\Q${\tmp('')}\E//gr);
	like($r->{err}, $text, 'says why');
	is($r->{out}, '', 'nothing on standard output');
	is($r->{err} =~ tr/\n//, 1, 'in one line') or diag($r->{err});
}
# Headers
for my $case (
	['big-endian' => dict('>f4', '(2, 3)')],
	['another type' => dict('<i4', '(2, 3)')],
	['objects' => dict('|O', '(2, 3)')],
	["Fortran's order" => dict('<f4', '(2, 3)', 'True')],
	['more than is there' => dict('<f4', '(2, 4)')],
	['less than is there' => dict('<f4', '(2, 2)')],
	['a shape that overflows' => dict('<f4', '(9223372036854775808, 2)')],
	['too many dimensions' => dict('<f4', '(1, 1, 1, 2, 3)')],
	['no shape' => "{'descr': '<f4', 'fortran_order': False, }"],
	['no type' => "{'fortran_order': False, 'shape': (2, 3), }"],
	['an open shape' => "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3"],
	['structures' => "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2, 3), }"],
	['nothing at all' => ''],
	)
{
	my ($name, $dict) = @$case;
	my $r = call('matrix', 2, npy_case($dict, $data));
	is($r->{status}, 2, ".npy: $name");
	like($r->{err}, qr/^vfun call: \S+case\.npy: [^\n]+\n\z/, 'in a sentence');
}
truncate tmp('m.npy'), $_ and is(call('matrix', 2, "\@$m")->{status}, 2, ".npy of $_ bytes") for 90, 20, 11, 9, 3;

# In a guest, by both ways to the arena
npy('m.npy', dict('<f4', '(2, 3)'), $data);
spew(tmp('script'), <<'END');
vfun call matrix 2 @/m.npy
vfun call packed [-5,5] 1,2
vfun call keep set 2 [[1,0],[2,0]] set 1 [[3,0]] get [[1,1]]
vfun call -j digest [1,2]
!1 vfun call behind 6 [1]
END
for my $path ('ivshmem', 'copy') {
	my $r = finish($d->guest('own', undef, '--path', $path, '--script', tmp('script'), '--add', tmp('m.npy')), 120);
	is($r->{status}, 0, "in a guest, path $path") or diag($r->{out}, $r->{err});
	like($r->{out}, qr/^\[\[1,2,3\],\[4,5,6\]\]\nc: \[-5,5\]\nd: \[1,2\]\n\[\[3\]\]\n\{.*"sum":"0102abff","n":2,/, 'what comes back');
	like($r->{err} . $r->{out}, qr/k: 6 is not -5\.\.5/, 'and what is refused');
}
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
