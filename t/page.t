#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# page.t - the client that vfun-protocol(7) shows, as a reader would copy it: with one worker and with several, and with the
# service killed under it
use strict;
use warnings;
use lib 't/lib';
use Math::BigInt;
use Test::More;
use Vfun;
use Man;
use Python;

my ($shown) = map { $_->[2] } grep { $_->[0] eq 'file' && $_->[1] eq 'client.py' } man_examples('man/vfun-protocol.7');
ok($shown, 'the page shows a client') or BAIL_OUT('no example');
my $client = spew(tmp('client.py'), $shown);
# So many repetitions that somebody can get in between.
my $long = $shown =~ s/struct\.pack\("<Q", n\)/struct.pack("<QQ", n, 10 ** 12)/r;
isnt($long, $shown, 'and a call that takes long is made of it');
$long = spew(tmp('long.py'), $long);

for my $workers (1, 4) {
	my $d = Vfun->new(conf => "[function factorial]\nspin = 0\nworkers = $workers\n[host]\nfunctions = factorial\n");
	ok($d->up, "vfund with $workers workers") or BAIL_OUT($d->log);
	my %env = (VFUN_RUN_DIR => $d->{run});
	for my $n (0, 20, 100) {
		my $r = run([host_python(), $client, $n], env => \%env);
		is($r->{status}, 0, "$n!") or diag($r->{err});
		is($r->{out}, Math::BigInt->new($n)->bfac . "\n", 'is right');
		is($r->{err}, '', 'without a word');
	}
	for my $how ('KILL', 'release') {
		my $job = start([host_python(), $long], env => \%env);
		my $number;
		ok(wait_until(20, sub { ($number) = vfun('status', '--run', $d->{run})->{out} =~ /^\s*(\d+)\s.*\bfactorial\b.*\bactive\b/m }), 'a call under way')
			or diag(slurp($job->{err}));
		select undef, undef, undef, 0.3;
		my ($service) = grep { $_->[1] eq 'vfun-service' } descendants();
		$how eq 'KILL' ? kill 'KILL', $service->[0] : vfun('release', '--run', $d->{run}, $number);
		my $r = finish($job, 20);
		is($r->{status}, 1, "$how: its client ends");
		like($r->{err}, qr/^the instance has ended \[73\]$/, 'and says why');
		is($r->{out}, '', 'and gives no result');
	}
	ok(wait_until(10, sub { vfun('status', '--run', $d->{run})->{out} !~ /factorial/ }), 'nothing is left of all that');
	is_deeply([$d->down], [], 'vfund stops and leaves nothing');
}
done_testing();
