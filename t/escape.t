#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# escape.t - root of a guest finds no way out of the share's mount, and none to write what it may only read
#
# t/lib/escape.c tries, in a VM of each QEMU at the same time, and says which errno each attempt ended with. Meanwhile a
# client on the host works on; afterwards both VMs do, and the host's files are what they were.
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new(conf => slurp('vfun.conf') . "\n[vm one]\nfunctions = factorial\n[vm two]\nfunctions = factorial\n");
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};

sub outside { return join '', map { run($_)->{out} } ['ls', '-a', '/'], ['find', tmp('outside'), '-printf', '%p %y %U %m %s %T@ %l\n']; }
sub run_folder { return run(['find', $d->{run}, '-printf', '%p %y %U %m %l\n'])->{out}; }
mkdir tmp('outside');
spew(tmp('outside/file'), 'kept');
symlink '/etc/passwd', tmp('outside/link');
my ($before, $run) = (outside(), run_folder());

# An instance of the host's, whose folder's name the guests are told.
my $held = start([client(), 'hold', 'factorial', 'host']);
ok(wait_until(10, sub { slurp($held->{out}) =~ /^ok instance/ }), 'somebody else has an instance');
my ($number) = slurp($held->{out}) =~ /instance (\d+)/;

spew(tmp('script'), "escape PATH factorial.$number\nvfun call factorial 5\nvfun status\n");
my %guest;
for my $case (['own', 'copy', 'one'], ['tree', 'dax', 'two']) {
	my ($which, $path, $vm) = @$case;
	spew(tmp("script.$path"), slurp(tmp('script')) =~ s/PATH/$path/r);
	$guest{$path} = $d->guest($which, undef, '--path', $path, '--vm', $vm, '--script', tmp("script.$path"),
		'--add', guest_client('escape') . ':/bin/escape');
}
ok(wait_until(30, sub { 2 == (() = $d->log =~ /is connected$/mg) }), 'both VMs are connected') or diag($d->log);
my $witness = start([client(), 'load', 12, 'host']);
my @shares = grep { $_->[1] eq 'vfun-share' } descendants();
is(scalar @shares, 2, 'by a share each');
for my $share ($> == 0 ? @shares : ()) {
	is_deeply([glob "/proc/$share->[0]/root/*"], [], 'a share has an empty root');
	is_deeply([grep { !m{^(?:socket:|anon_inode:\[event(?:fd|poll)|/memfd:|/dev/null|/tmp/vt-\w+/\w+\.log)} }
		map { readlink } glob "/proc/$share->[0]/fd/*"], [], 'and no descriptor of a file of the host');
}
for my $path (sort keys %guest) {
	my $r = finish($guest{$path}, 120);
	is($r->{status}, 0, "$path: root in the guest is refused") or diag($r->{err}, $d->log);
	my ($n) = $r->{out} =~ /^ok (\d+)$/m;
	cmp_ok($n // 0, '>', 1000, "$path: in each attempt as expected: " . ($n // 'not'));
	is(join('', $r->{out} =~ /^BAD.*\n/mg), '', 'none succeeds, or fails for another reason');
	my %errno;
	$errno{$_}++ for $r->{out} =~ /^(E\w+) /mg;
	diag("$path: ", join ' ', map { "$_ $errno{$_}" } sort { $errno{$b} <=> $errno{$a} } keys %errno);
	like($r->{out} =~ s/^(?:[EB]|good).*\n//mgr, qr/^120\nvfund.* 0 instances; you are/m, 'then it calls a function as before, and nothing is left of it');
}
my $r = finish($witness, 60);
is($r->{status}, 0, 'a client on the host saw nothing of it') or diag($r->{out});
like(vfun('status')->{out}, qr/^ *$number /m, 'the other instance is still there');
kill 'KILL', $held->{pid};
finish($held, 5);
unlike($d->log, qr/died|error/, 'no share and no engine died of it') or diag($d->log);
cmp_ok(length $d->log, '<', 20_000, 'and the log is short');
ok(wait_until(10, sub { run_folder() eq $run }), 'the run folder is what it was') or diag(run_folder());
is(outside(), $before, 'and so is what is outside');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
