#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# share-killed.t - a VM's share killed with -9 again and again under load is replaced, and the guest sees no error
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Time::HiRes qw(sleep time);
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');

sub share { return (grep { $_->[1] eq 'vfun-share' } descendants())[0]; }

for my $case (['tree', 'dax'], ['own', 'copy']) {
	my ($which, $path) = @$case;
	my $guest = $d->guest($which, ['client', 'load', 12, $path], '--path', $path, '--add', guest_client() . ':/bin/client');
	ok(wait_until(90, sub { vfun('status', '--run', $d->{run})->{out} =~ / active / }), "$path: a guest under load");
	my ($kills, @took) = (0);
	my $end = time + 8;
	while (time < $end) {
		sleep 0.05 + rand 0.4;
		my $share = share() or next;
		my $start = time;
		kill 'KILL', $share->[0];
		$kills++;
		my $new = wait_until(2, sub { my $s = share(); $s && $s->[0] != $share->[0] });
		push @took, time - $start;
		ok($new, "kill $kills: a successor is there") or last;
	}
	my $r = finish($guest, 120);
	is($r->{status}, 0, "$path: the guest saw no error in $kills kills") or diag($r->{out}, $r->{err}, $d->log);
	like($r->{out}, qr/^ok \d+ calls/, "all its calls were right: $r->{out}");
	cmp_ok($kills, '>', 10, "$kills kills");
	@took = sort { $a <=> $b } @took;
	diag(sprintf 'until the test saw the successor: median %.0f ms; %s', $took[@took / 2] * 1000, $r->{out} =~ s/\n//r);
	# Tens of milliseconds of which the test's own look at all processes is a good part.
	cmp_ok($took[@took / 2], '<', 0.25, 'half of the successors were there in less than 250 ms');
	ok(wait_until(10, sub { vfun('status', '--run', $d->{run})->{out} !~ /factorial/ }), 'no instance is left');
}
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
