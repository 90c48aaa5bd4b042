#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# hostile.t - a client that rewrites its slots and arena while the service reads them: no wrong memory access, and a second
# client's answers stay right
#
# vfund and its services are those of SANITIZE=1, whatever is tested otherwise. A service has each region between two pages
# that can't be touched, so that what isn't instrumented (the libraries that compute) is caught as well. The second client
# is another user, served by a process of its own; how long its calls take is shown, beside the hostile client and beside
# one that makes as much load and no trouble, in turn: with few processors all of them wait for one. The half of them must
# not take three times as long.
#
#	make hostile CALLS=10000000	so many calls of the hostile client
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $calls = $ENV{VFUN_HOSTILE_CALLS} || 150_000;
my $rounds = 5;
my $per_round = int(($calls + $rounds - 1) / $rounds);

$VFUN = sanitized() . '/vfun';
my $d = Vfun->new;
ok($d->up, 'its vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
my @as = $> == 0 ? (as => [65534, 65534]) : ();
my %us;

# The witness, as long as the others take, or for two seconds.
sub beside {
	my ($what, @args) = @_;
	my $witness = start([client('hostile'), 'witness', 'host']);
	ok(wait_until(20, sub { slurp($witness->{out}) =~ /^ready/ }), "a second client, $what") or diag(slurp($witness->{out}));
	my $r = @args ? run([client('hostile'), @args], @as, timeout => 60 + $calls / 1000) : select(undef, undef, undef, 2);
	kill 'TERM', $witness->{pid};
	my $w = finish($witness, 90);
	is($w->{status}, 0, 'all its answers are right') or diag($w->{out}, $d->log);
	push @{ $us{$what}{$1} }, $2 while $w->{out} =~ /(mean|median|99% within) ([\d.]+) us/g;
	note("second client, $what: $w->{out}" =~ s/ready\n|\n\z//gr);
	return $r;
}

beside('alone');
my ($done, $otherwise) = (0, 0);
for my $round (1 .. $rounds) {
	my $r = beside('beside as much load', 'behave', int($per_round / 2), 'host');
	is($r->{status}, 0, 'which is well-behaved, and has all its answers') or diag($r->{out}, $d->log);
	$r = beside('beside the hostile client', 'rewrite', $per_round, 'host');
	like($r->{out}, qr/^ok \d+ calls, \d+ answered otherwise/, 'which goes on to the end') or diag($r->{out}, $r->{err}, $d->log);
	note('hostile client: ' . $r->{out} =~ s/\n//r);
	my @n = $r->{out} =~ /(\d+)/g;
	$done += $n[0] // 0;
	$otherwise += $n[1] // 0;
}
cmp_ok($done, '>=', $calls, "$done calls while they were rewritten");
cmp_ok($otherwise, '>', 0, "$otherwise of them in time to be answered otherwise");
unlike($d->log, qr/(?:died|ended): signal/, 'no process died of anything');

sub middle { return (sort { $a <=> $b } @{ $_[0] })[@{ $_[0] } / 2]; }
for my $of ('mean', 'median', '99% within') {
	my ($hostile, $load, $alone) = map { middle($us{$_}{$of}) } 'beside the hostile client', 'beside as much load', 'alone';
	note(sprintf 'second client, %s: %.2f us beside the hostile client, %.2f us beside as much load (ratio %.2f), %.2f us alone',
		$of, $hostile, $load, $hostile / $load, $alone);
}

# A call takes a quarter of a microsecond, or a wake-up, which is many times as long, by whether both sides have a processor at
# that moment: of the rounds, the best are compared.
my ($hostile, $load) = map { (sort { $a <=> $b } @{ $us{$_}{median} })[0] } 'beside the hostile client', 'beside as much load';
cmp_ok($hostile, '<', 3 * $load, "its median call in the best round: $hostile us beside the hostile client, $load us beside as much load");
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
