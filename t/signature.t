#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# signature.t - signatures: parsed and compared with calls; shown by vfun list, and what vfun call makes of them
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Vfun;

# What proto/signature.c and proto/fit.c say: a line, and below it the answer; keep and forget have none.
my (@lines, @want);
while (my $line = <DATA>) {
	chomp $line;
	next if !length $line;
	push @lines, $line;
	push @want, substr(<DATA>, 2) =~ s/\n\z//r if $line !~ /^(?:keep|forget)$/;
}
my $long = '= ' . 'a u8, ' x 86 . '-> int';
my @more = ($long => 'longer than 511 bytes',
	'= ' . join(', ', map { "a$_ u8[3]" } 1 .. 17) . ' -> int' => 'more than 16 arrays',
	'= a u8 -> ' . join(', ', map { "a$_ u8" } 1 .. 17) => 'more than 16 results',
	"= a u8 \x01 -> int" => "a strange character stands where ',' or '->' should be");
my $r = run([Vfun::build('signature', 'signature', '-fsanitize=address,undefined', '-fno-sanitize-recover=all')],
	stdin => join("\n", @lines, map { $more[2 * $_] } 0 .. $#more / 2) . "\n");
is($r->{status}, 0, 'it ends well') or diag($r->{err});
my @got = split /\n/, $r->{out};
my @asked = grep { !/^(?:keep|forget)$/ } @lines;
is(shift @got, shift @want, shift @asked) while @asked;
for my $i (0 .. $#more / 2) {
	is(shift @got, $more[2 * $i + 1], $more[2 * $i + 1]);
}
is_deeply(\@got, [], 'and nothing else');

# What the service makes of calls that their client doesn't look at first; by each path, in a guest too
requires('root', 'qemu', 'kernel', 'tree');
my $refusals = <<'END';
factorial: arguments reps: 0 is not 1..18446744073709551615
factorial: arguments n: missing
factorial: arguments 3 numbers, not 1 to 2
factorial: arguments 8 bytes of input, and it takes none
sha256: arguments data: missing
sha256: arguments 2 numbers, not 0 to 1
pingpong: arguments rounds: 4294967296 is not 0..4294967295
square: arguments a: 6 bytes: no whole n
square: result-size the result needs 64 bytes of room
square: ok 
END
my $square = program('square');
my $functions = join '', map { "[function $_]\n" } qw(factorial sha256 pingpong);
my $conf = "${functions}[function square]\nbackend = program\nprogram = $square\n[host]\nfunctions = factorial sha256 pingpong square\n"
	. "[vm demo]\nfunctions = factorial sha256 pingpong square\nivshmem = 64M\n";
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT($d->log);
$ENV{VFUN_RUN_DIR} = $d->{run};
is(run([client(), 'refused', 'host'])->{out}, $refusals, 'refused on the host');
is(run([client(), 'control'])->{out}, "ok\n", 'SIGNATURE, right and wrong') or diag($d->log);
for my $case (['own', 'ivshmem'], ['own', 'copy'], ['tree', 'dax']) {
	my ($which, $path) = @$case;
	spew(tmp('script'), "client refused $path\nclient control\nvfun list -v\n");
	my $g = finish($d->guest($which, undef, '--path', $path, '--script', tmp('script'), '--add', guest_client() . ':/client'), 120);
	like($g->{out}, qr/^\Q$refusals\Eok$/m, "and in a guest by $path") or diag($g->{err}, $d->log);
	like($g->{out}, qr/^square +program +software +the square of each number\n  a f32\[n\] -> b f32\[n\]\n    arena: /m, 'where vfun list shows signatures');
	unlike($g->{out}, qr/\Q$square\E/, "and nothing of the host's files");
}
my %listed = map { $_->{name} => $_ } @{ decode_json(vfun('list', '-j')->{out}) };
is($listed{factorial}{signature}, 'n u64, reps u64 1.. default 1 -> int', 'vfun list -j');
is(vfun('list', '-j')->{out} =~ /limits/, '', 'without limits');
like(decode_json(vfun('list', '-jv')->{out})->[3]{limits}, qr/^program: \Q$square\E$/m, 'with -v they are there, for administrators with the program');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# vfun.conf may say it as well
sub check {
	my ($name, $lines) = @_;
	return run([$VFUN, 'daemon', '-n', '-c', spew(tmp('n.conf'), "[function $name]\n$lines\n")], timeout => 30)->{err};
}
my $program = "backend = program\nprogram = $square\n";
is(check('factorial', 'signature = n  u64,reps u64 1..18446744073709551615 default 1 -> int'), '', 'the same in other words');
is(check('factorial', "signature = n u64,\n  reps u64 1.. default 1\n  -> int"), '', 'in several lines');
is(check('square', "${program}signature = a f32[n] -> b f32[n]"), '', "a program's");
like(check('factorial', 'signature = n u32, reps u64 1.. default 1 -> int'),
	qr/n\.conf:1: \[function factorial\]: signature: the function's own is n u64, reps u64 1\.\. default 1 -> int$/m, 'another one');
like(check('factorial', 'signature = n u65 -> int'), qr/signature: 'u65': a type should be there$/m, 'none');
like(check('factorial', 'signature = ' . join("\n  ", ('n u64, ' x 25) x 3)), qr/signature: longer than 511 characters$/m, 'one that is too long');
like(check('square', "${program}signature = a f64[n] -> b f64[n]"), qr/signature/, 'not what the program says');

done_testing();

__DATA__
= n u64 0..20000, reps u64 1..18446744073709551615 default 1 -> int
  ok 1 1
same n u64 0..20000, reps u64 1.. default 1 -> int
  yes
get 5
  ok 5 1 -> int[0]@0+0 0
get 5 3
  ok 5 3 -> int[0]@0+0 0
get 5 0
  reps: 0 is not 1..18446744073709551615
get 20001
  n: 20001 is not 0..20000
get
  n: missing
get 1 2 3
  3 numbers, not 1 to 2
get 5 in 0
  ok 5 1 -> int[0]@0+0 0
get 5 in 3
  3 bytes of input, and it takes none
same  n   u64 0..20000,reps u64 1..18446744073709551615 default 1->int
  yes
same  n   u64 0..20000,reps u64 1..18446744073709551614 default 1->int
  no
= data u8[*] -> digest hex[32]
  ok 2 3
get in 13
  ok data[13]@0+13 -> digest[32]@0+32 32
get in 0
  ok data[0]@0+0 -> digest[32]@0+32 32
get
  data: missing
get 1 in 3
  1 number, and it takes none
= n u32 1..9 -> out f32[*,4,n]
  ok 1 2
get 3
  ok 3 -> out[0,4,3]@0+0 0
= set d u32 1..9; get n u32 -> out f32[*,d]
  ok 1 2
get 3
  no data: there was no set
set 2
  ok 2
keep
get 3
  ok 3 -> out[0,2]@0+0 0
= align 1 64: a u32[n], b u32[n] -> out u32[n], c u8[n]
  ok 2 2
get in 24
  ok a[3]@0+12 b[3]@12+12 -> out[3]@0+12 c[3]@64+3 67
get in 25
  input: 25 bytes: no whole n
get in 0
  ok a[0]@0+0 b[0]@0+0 -> out[0]@0+0 c[0]@0+0 0
= a u8[n], b u8[n] -> out u8[n]
  ok 2 2
get in 0
  ok a[0]@0+0 b[0]@0+0 -> out[0]@0+0 0
get in 17
  input: 17 bytes: no whole n
get in 16
  ok a[8]@0+8 b[8]@8+8 -> out[8]@0+8 8
get in 9
  ok a[1]@0+1 b[1]@8+1 -> out[1]@0+1 1
get in 8
  input: 8 bytes: no whole n
get in 19
  input: 19 bytes: no whole n
= a u8[n], b u16[3], c u8[n] -> nothing
  ok 2 0
get in 11
  input: 11 bytes: no whole n
= set n u32 1..1000000, d u32 1..4096, base f32[n,d]; get queries f32[m,d] -> index u32[m]
  ok 2 2
get in 8
  no data: there was no set
set 3 2 in 24
  ok 3 2 base[3,2]@0+24
set 3 2 in 25
  base: 25 bytes, not 24
get in 8
  no data: there was no set
set 3 2 in 24
  ok 3 2 base[3,2]@0+24
keep
get in 32
  ok queries[4,2]@0+32 -> index[4]@0+16 16
get in 30
  queries: 30 bytes: no whole m
forget
get in 32
  no data: there was no set
= set chunk u8[*]; get -> digest hex[32]
  ok 2 3
get
  ok -> digest[32]@0+32 32
set in 77
  ok chunk[77]@0+77
set
  chunk: missing
= x i8 -3..5, y f64 -1.5..1e3, z f32 default .5 -> r f64
  '.': a number should be there
= x i8 -3..5, y f64 -1.5..1e3, z f32 default 0.5 -> r f64
  ok 1 2
get -3 -1.5
  ok -3 -1.5 0.5 -> r@0+8 8
get -4 0.
  x: -4 is not -3..5
get 5 1000.5
  y: 1000.5 is not -1.5..1000
get 5 nan
  y: nan is not -1.5..1000
get 5 1.0 nan
  ok 5 1 nan -> r@0+8 8
= a u8 0..256 -> int
  a: not a range of u8
= a u8 5..4 -> int
  a: not a range of u8
= a u8 default 256 -> int
  a: its default is not in its range
= set u8 -> int
  'u8': a name should be there
= a u8, a u8 -> int
  a: there are two of this name
= a u8
  it ends where ',' or '->' should be
= -> int
  ok 0 1
get
  ok -> int[0]@0+0 0
= a u8[n,m] -> int
  a: a second free dimension, beside n
= a u8[0] -> int
  a: a dimension is 0
= a u8[x], x i32 -> int
  a: a dimension is unsigned, x is i32
= a u8[n], b u8[4] -> int
  a: a free dimension has to be in the last array as well
= align 1 8: a u8[n], b u8[4] -> b u8[n]
  ok 2 2
get in 9
  ok a[5]@0+5 b[4]@5+4 -> b[5]@0+5 5
get in 3
  input: 3 bytes, not 4 or more
= a u64[n], b u8[3] -> n u64
  ok 2 1
get in 11
  ok a[1]@0+8 b[3]@8+3 -> n@0+8 8
= -> out u8[*], n u8
  out: only the last result may be of any length
= a u64, b u64, c u64, d u64[2] -> int
  ok 2 1
= a u64, b u64, c u64, d u64, e u64[2] -> int
  more than 3 numbers beside arrays don't fit a call
= a u64, b u64, c u64, d u64, e u64, f u64, g u64, h u64 -> int
  more than 7 numbers don't fit a call
= a u64 default 1, b u64 -> int
  b: it follows one with a default, and has none
= n u64, a u64[n,n,n] -> int
  ok 2 1
get 4294967296 in 8
  a: too large
get 2 in 64
  ok 2 a[2,2,2]@0+64 -> int[0]@0+0 0
get 0 in 0
  ok 0 a[0,0,0]@0+0 -> int[0]@0+0 0
= n u64 -> r u64[n]
  ok 1 2
get 18446744073709551615
  the result is too large
get 2
  ok 2 -> r[2]@0+16 16
= n u64 -> r u16[*,n]
  ok 1 2
get 7
  ok 7 -> r[0,7]@0+0 0
= averyveryverylongnameofthirtyone u64 10000000000000000000..18446744073709551615 -> int
  'averyveryverylongnameofthirtyone': the name is too long
= averyveryverylongnameofthirtyon u64 10000000000000000000..18446744073709551615 -> int
  ok 1 1
get 5
  averyveryverylongnameofthirtyon: out of its range
= a u8[*] -> hash hex
  ok 2 3
= a hex[3] -> int
  'hex': a type should be there
= a u8[3 -> int
  '->': ']' should be there
= align 3 3: a u8[3] -> int
  align: powers of two up to 4096, please
= a u8[*], b u8[*] -> int
  b: a second free dimension, beside *
= a u8[n,n] -> int
  a: its free dimension is there twice
= x f64 nan..1 -> int
  'nan': ',' or '->' should be there
