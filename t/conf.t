#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# conf.t - vfun daemon -n says line and reason of each fault of a vfun.conf
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $good = "[function factorial]\nbackend = software\n";

sub check {
	my ($text) = @_;
	return vfun('daemon', '-n', '-c', spew(tmp('x.conf'), $text));
}

my $r = vfun('daemon', '-n', '-c', 'vfun.conf');
is($r->{status}, 0, 'the default vfun.conf is good') or diag($r->{err});
is($r->{out} . $r->{err}, '', 'and nothing is said');
is(check($good)->{status}, 0, 'so is a short one');
is(check("[function factorial]\n[vm a]\nfunctions =\n  factorial\n")->{status}, 0, 'a section without keys, a list that goes on');

is(check("$good\[vm a]\nivshmem = 0\n")->{status}, 0, 'no ivshmem memory');

for my $case (
	["key = 1\n", 1, qr/before the first section/],
	["[vfund]\nuser = no body!\n", 2, qr/user: 'no body!' is not a name/],
	["[vfund]\ninstances = 99999\n", 2, qr/instances: 99999 is not between/],
	["[vfund]\nmemory = lots\n", 2, qr/memory: 'lots' is not a number/],
	["[vfund]\nmemory = 99999999999G\n", 2, qr/memory: '99999999999G' is not a number/],
	["[vfund]\nbogus = 1\n", 2, qr/'bogus' is not a key/],
	["[weird]\nx = 1\n", 1, qr/\[weird\] is not a section/],
	["[function 1x]\nbackend = software\n", 1, qr/not a name for a function/],
	["[function nosuch]\nbackend = software\n", 1, qr/backend software has no such function/],
	["[function zstd]\nbackend = magic\n", 1, qr/no backend 'magic'/],
	["[function zstd]\nslots = 0\n", 2, qr/slots: 0 is not between/],
	["[function zstd]\nslots = 257\n", 2, qr/slots: 257 is not between/],
	["[function zstd]\ncpu = 0\n", 2, qr/cpu: 0 is not between/],
	["[function zstd]\ncpu = 101\n", 2, qr/cpu: 101 is not between/],
	["[function zstd]\noverhead = 1M\n", 2, qr/overhead: 1M is not between/],
	["[vm a]\nfunctions = factorial\n  zonk\n", 3, qr/no \[function zonk\]/],
	["[vm a]\nmemory = 5M\n  6M\n", 3, qr/memory: a second value/],
	["[vm 5a]\n", 1, qr/not a name for a VM/],
	["[host]\nwindow = 1G\n", 2, qr/'window' is not a key/],
	["[function zstd]\nslots = 60\n", 2, qr/slots: 60 is not a power of two/],
	["[vm a]\nfunctions = zonk factorial\n", 2, qr/no \[function zonk\]/],
	["[vm a]\nwindow = 3M\n", 2, qr/window: 3M is not a power of two/],
	["[vm a]\nwindow = 1M\n", 2, qr/window: 1M is not between/],
	["[vm a]\nivshmem = 3M\n", 2, qr/ivshmem: 3M is not a power of two/],
	["[vm a]\nivshmem = 64K\n", 2, qr/ivshmem: 64K is not between/],
	["[vm a]\ndirect-io = maybe\n", 2, qr/neither yes nor no/],
	["[vm ../../x]\nwindow = 1G\n", 1, qr/not a name for a VM/],
	["[vm uid-5]\nwindow = 1G\n", 1, qr/not a name for a VM/],
	["[host]\nfunctions = factorial,zonk\n", 2, qr/no \[function zonk\]/],
	["\xEF\xBB\xBF[vfund]\nuser = bogus!!\n", 2, qr/user: 'bogus!!'/],
	["[vfund]\nuid-base = 1000\n", 2, qr/uid-base: 1000 is not between/],
	["garbage\n", 1, qr/neither a \[section\]/],
	["[vfund\nuser = x\n", 1, qr/neither a \[section\]/],
	["[vfund ;]\nuser = nobody\n", 1, qr/neither a \[section\]/],
	["[function factorial] trailing\n", 1, qr/'trailing' stands after the section's name/],
	["[function factorial];x\n", 1, qr/';x' stands after/],
	["; a NUL\0 byte\n", 1, qr/a NUL byte in the line/],
	["[vfund]\nuser = \e[31mred\a\n", 2, qr/user: '\?\[31mred\?' is not a name/],
	["[vm \e]\n", 1, qr/\[vm \?\]: not a name/],
	["[vfund]\n  [host]\nbogus = 1\n", 3, qr/'bogus' is not a key/],
	['; ' . 'x' x 300 . "\n", 1, qr/longer than/])
{
	my ($text, $line, $reason) = @$case;
	my $lines = ($good =~ tr/\n//);
	$r = check($text =~ /^\[/ ? $good . $text : $text . $good);
	$line += $lines if $text =~ /^\[/;
	is($r->{status}, 2, 'refused: ' . substr($text, 0, 40) =~ s/\n/ /gr);
	like($r->{err}, qr/x\.conf:$line: .*$reason/, "line $line and the reason");
	is($r->{out}, '', 'nothing on standard output');
}
$r = check("key = 1\n[vfund]\nbogus = 1\ninstances = x\n");
is(scalar(() = $r->{err} =~ /^\S+x\.conf:\d+:/mg), 3, 'all faults in one go');
like($r->{err}, qr/x\.conf: there is no \[function NAME\]/, 'also what is missing');
$r = check("$good\[x\nrubbish\n[vfund]\nrubbish\nfurther rubbish\ninstances = 0\n");
is(join(' ', $r->{err} =~ /^\S+x\.conf:(\d+):/mg), '3 4 6 7 8', 'also all lines that are nothing at all');
is($r->{err} =~ tr/\n//, 6, 'a line each, and their number');
is(check("$good; x\n[host] ; clients here\n\tfunctions = factorial ; a comment\n  factorial\n\n  # or\n; x = y\n[vm a]\nmemory : 5M")->{err}, '', 'what is no fault');
SKIP: {
	skip "whose identity the engine takes is root's affair", 6 if $> != 0;
	for my $case (['nosuch', qr/'nosuch' is not in \/etc\/passwd/], ['root', qr/'root' is root/]) {
		my ($user, $reason) = @$case;
		$r = check("$good\[vfund]\ninstances = 5\nuser = $user\nbogus = 1\n");
		is($r->{status}, 2, "refused: user = $user");
		like($r->{err}, qr/x\.conf:5: user: $reason/, 'line and reason');
		like($r->{err}, qr/x\.conf:6: .*bogus/, 'with the other faults');
	}
}
is(check('')->{status}, 2, 'an empty file offers nothing');
like(check("$good  [host]\nfunctions = nosuch\n")->{err}, qr/nosuch|second value/, 'an indented section is not overlooked');
like(run([$VFUN, 'daemon', '-n', '-c', '/dev/zero'], timeout => 20)->{err}, qr/goes on beyond/, 'a file without end');
is(check("\0\0\0\xff\xfe" x 100)->{status}, 2, 'binary rubbish');

for my $bad (tmp('nosuch'), tmp()) {
	$r = vfun('daemon', '-n', '-c', $bad);
	is($r->{status}, 2, "can't be read: $bad");
	like($r->{err}, qr/can't read|reading failed|faults?$/, 'is said');
}
# Without -n, a daemon with such a file doesn't start.
$r = vfun('daemon', '-c', spew(tmp('x.conf'), "[vfund]\nbogus = 1\n"), '--run', tmp('run'));
is($r->{status}, 2, 'vfund does not start with a bad file');
ok(!-e tmp('run'), 'nor touches its run folder');
for my $args (['-x'], ['extra'], ['-c']) {
	is(vfun('daemon', @$args)->{status}, 2, "usage: daemon @$args");
}
done_testing();
