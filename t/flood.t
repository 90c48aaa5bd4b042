#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# flood.t - a client that floods control and rings without end costs itself: others are served, and nothing of it stays
#
# How well others are served is told by how many calls a witness gets done beside the flood, and beside as many processes
# as it keeps busy which ask nothing of anybody, in turn: a third at least. Absolute times would tell about this machine.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
my @as = $> == 0 ? (as => [65534, 65534]) : ();

sub witness {
	my ($what, $seconds) = @_;
	my $r = run([client(), 'load', $seconds // 3, 'host'], timeout => 60);
	is($r->{status}, 0, "$what: another client's calls are right") or diag($r->{out}, $d->log);
	diag("$what: $r->{out}" =~ s/\n//r);
	return $r->{out} =~ /^ok (\d+) calls/ ? $1 : 0;
}

sub beside {
	my ($what, $n, @args) = @_;
	my @jobs = map { start([client(), $args[0], 2.5, @args[1 .. $#args]], @as) } 1 .. $n;
	select(undef, undef, undef, 0.3);
	my $calls = witness("beside $what", 1.5);
	for (@jobs) {
		my $r = finish($_, 60);
		like($r->{out}, qr/^ok/, $what . $r->{out} =~ s/^ok|\n//gr);
	}
	return $calls;
}

sub middle { return (sort { $a <=> $b } @_)[@_ / 2]; }

sub memory {
	my ($name) = @_;
	my ($p) = grep { $_->[1] eq $name } descendants();
	return slurp("/proc/$p->[0]/status") =~ /^VmRSS:\s+(\d+)/m ? $1 : 0;
}

witness('alone');
my $before = memory('vfun-engine');
# The engine is busy as well when it is flooded.
my %calls;
for (1 .. 5) {
	push @{ $calls{load} }, beside('four busy loops', 4, 'spin');
	push @{ $calls{flood} }, beside('three floods', 3, 'flood', 'host');
	push @{ $calls{connects} }, beside('three that connect and hang up', 3, 'connects');
}
for (qw(flood connects)) {
	my $ratio = middle(@{ $calls{$_} }) / (middle(@{ $calls{load} }) || 1);
	cmp_ok($ratio, '>', 1 / 3, sprintf 'the witness beside %s: %.2f of its calls beside as much load', $_, $ratio);
}
cmp_ok(memory('vfun-engine') - $before, '<', 4096, 'the engine has not grown by it');

my $guest = $d->guest('tree', ['client', 'flood', 8, 'dax'], '--path', 'dax', '--add', guest_client() . ':/bin/client');
ok(wait_until(90, sub { vfun('status')->{out} =~ / demo / }), 'a guest that floods');
$before = memory('vfun-share');
witness('beside it');
cmp_ok(memory('vfun-share') - $before, '<', 4096, 'its share does not grow by it');
my $r = finish($guest, 90);
like($r->{out}, qr/^ok \d+ requests/, 'the guest: ' . $r->{out} =~ s/\n//r) or diag($r->{err}, $d->log);
ok(wait_until(5, sub { vfun('status')->{out} !~ /factorial/ }), 'nothing is left of it');
cmp_ok(length $d->log, '<', 20_000, 'the log is short: ' . length($d->log));
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
