#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# fork.t - an instance that is open when its process forks: the child gets a sentence instead of a call, whatever it tries,
# opens one of its own, and may end as it likes; the parent has lost nothing. In C, and in Python with multiprocessing
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Python;
use Vfun;

requires('qemu', 'kernel', 'tree');

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, PYTHONPATH => 'proto', PYTHONDONTWRITEBYTECODE => 1);

sub instances { return () = vfun('status', '--run', $d->{run})->{out} =~ /\bactive\b/g; }

my $r = run([client('fork'), 'host'], env => \%env, timeout => 60);
is($r->{out}, "ok host\n", 'on the host') or diag($r->{err}, $d->log);

for my $case (['own', 'ivshmem'], ['own', 'copy'], ['tree', 'dax']) {
	my ($which, $path) = @$case;
	$r = finish($d->guest($which, ['fork', $path], '--path', $path, '--add', guest_client('fork') . ':/bin/fork'), 120);
	is($r->{out}, "ok $path\n", "in a guest, $path") or diag($r->{err}, $d->log);
}

$r = run([host_python(), '-W', 'error', 't/lib/fork.py'], env => \%env, timeout => 60);
my $child = "child: sha256: this instance is the parent process's: open one after fork(); its own: right\n";
is($r->{out}, <<"END", 'in Python') or diag($r->{err}, $d->log);
${child}parent: right
parent, meanwhile: right
${child}parent: right
child that leaves the block: 0
in flight: right
parent: right
END

is(instances(), 0, 'every instance is given back');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
