#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# refused.t - a service or program that makes a system call that it may not make ends, whatever it did before; log and
# client are told which call it was, and what to write into vfun.conf
use strict;
use warnings;
use lib 't/lib';
use Python;
use Test::More;
use Vfun;

requires('root', 'qemu', 'kernel');

my @names = qw(plain reads number other early own blocks handles babbles lies);
my $program = program('refused');
my $static = program('refused', '-static');
my $conf = join '', map { "[function $_]\nbackend = program\nprogram = $program\nready-timeout = 3000\n" } @names;
$conf .= "[function static]\nbackend = program\nprogram = $static\n[function two]\nbackend = program\nprogram = $program\nworkers = 2\n"
	. "[function allowed]\nbackend = program\nprogram = $program\nsyscalls = socket\n[function raw]\nbackend = program\nprogram = "
	. program('raw') . "\nsyscalls = read\n[function factorial]\n[host]\nfunctions = @names static two allowed raw factorial\n[vm demo]\nfunctions = plain\n";
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT($d->log);
$ENV{VFUN_RUN_DIR} = $d->{run};

# The call's own name, wherever it is made; a lie is a sentence, and nothing else. What can't be told ends all the same.
my $socket = "called socket(), which vfun.conf doesn't allow: syscalls = socket";
my $unknown = 'made a system call that it may not make (vfun.conf: syscalls)';
for my $case (
	['plain', 7, $socket, 'a call that is on no list'],
	['reads', 7, "called openat(), which vfun.conf doesn't allow: syscalls = openat", 'one that it could make before it served'],
	['static', 7, $socket, 'in a static program'],
	['two', 7, $socket, 'in one with two threads'],
	['early', 3, "called getppid(), which vfun.conf doesn't allow: syscalls = getppid", 'while it prepares itself'],
	['number', 7, "made system call 600, which vfun can't allow: it has no name for it", 'one that nobody knows'],
	['other', 7, $unknown, 'one of 32 bits, which kills at once'],
	['own', 7, $socket, 'in a program that handles SIGSYS itself'],
	['blocks', 7, $unknown, 'in one that blocks all signals'],
	['handles', 7, "called rt_sigaction(), which vfun.conf doesn't allow: syscalls = rt_sigaction", 'in one that would handle SIGSYS later'],
	['babbles', 7, $unknown, "in one that has filled the launcher's socket"],
	['lies', 7, "made system call 7777, which vfun can't allow: it has no name for it", 'in one that lies'],
	)
{
	my ($name, $status, $sentence, $what) = @$case;
	my $r = vfun('call', $name, 0);
	is($r->{status}, $status, "$what: it ends") or diag($r->{out}, $r->{err});
	is($r->{out}, '', 'without an answer');
	ok(wait_until(5, sub { $d->log =~ /^vfund.*: \Q$name $sentence\E$/m }), 'the log says why') or diag($d->log);
	like($r->{err}, qr/\Q$sentence\E/, 'and so does the client');
}
is(vfun('call', 'allowed', 0)->{out}, 'alive', 'what vfun.conf names is allowed');
is(vfun('call', 'plain', 1)->{out}, 'fine', 'and who makes no such call lives');

# When it is asked what it is
my $r = run([$VFUN, 'daemon', '-n', '-c', spew(tmp('c'), "[function asked]\nbackend = program\nprogram = $program\n")]);
is($r->{status}, 2, 'a program that is refused a call when it is asked what it is');
like($r->{err}, qr/asked --describe it called getppid\(\), .*: syscalls = getppid$/m, 'the same sentence');

# In a guest
$r = finish($d->guest('own', [qw(vfun call plain 0)]), 120);
is($r->{status}, 7, 'the same for a client in a guest');
like($r->{err}, qr/the service has ended: plain \Q$socket\E/, 'which is told as well') or diag($r->{out}, $d->log);

# And in Python
$r = run([host_python(), '-c', "import vfun\nwith vfun.open('plain') as f:\n    f(0)"], env => { PYTHONPATH => 'proto' });
like($r->{err}, qr/vfun\.Error: the service has ended: plain \Q$socket\E$/m, 'one in Python as well');

# A function of vfun's own makes no such call by itself.
is(run(['gcc', '-O1', '-Wall', '-Wextra', '-o', tmp('othercall'), 't/lib/othercall.c'])->{err}, '', 'a tool that makes it');
my $client = start([client(), 'hold', 'factorial', 'host']);
ok(wait_until(10, sub { slurp($client->{out}) =~ /^ok/ }), 'an instance of a function of its own');
my ($service) = grep { $_->[1] eq 'vfun-service' } descendants();
is(run([tmp('othercall'), $service->[0], 110])->{err}, '', 'its service is made to call getppid()');
ok(wait_until(5, sub { $d->log =~ /the service of factorial ended: signal 31: it may not call getppid$/m }), 'the log says so') or diag($d->log);
kill 'TERM', $client->{pid};
finish($client, 5);

is_deeply([$d->down], [], 'nothing is left');
forget($d->{log});    # what this is about
done_testing();
