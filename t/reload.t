#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# reload.t - vfun.conf read again, by vfun reload and by SIGHUP: new programs and functions for new instances while old ones go
# on, quotas, what has faults changes nothing, and a replaced engine knows all of it
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

requires('root');

my $path = tmp('v');

sub install { is(run(['cp', program('version', "-DVERSION=$_[0]"), $path])->{status}, 0, "version $_[0] is installed over the other"); }
sub function { my ($name, $more) = @_; return "[function $name]\nbackend = program\nprogram = $path\n" . ($more // ''); }

sub conf {
	my (%o) = @_;
	my $functions = $o{functions} // "version other factorial";
	return ($o{more} // '') . ($o{text} // function('version') . function('other')) . "[function factorial]\nbackend = software\n"
		. "[host]\nfunctions = $functions\n" . ($o{host} // '');
}

install(1);
my $d = Vfun->new(conf => conf());
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
sub call { return vfun('call', @_); }
sub version { my $r = call($_[0] // 'version', 0); return $r->{status} ? "status $r->{status}: $r->{err}" : $r->{out} =~ s/\D//gr || unpack 'Q<', $r->{out}; }
sub hold {
	my ($name, $is) = @_;
	my $job = start([client('same'), $name]);
	ok(wait_until(10, sub { slurp($job->{out}) =~ /ready $is$/m }), "a client holds version $is of $name") or diag(slurp($job->{out}));
	return $job;
}
sub let_go {
	my ($job) = @_;
	kill 'TERM', $job->{pid};
	return like(finish($job, 20)->{out}, qr/^ok \d+$/m, 'it had the same answer all the time');
}
sub reload { spew($d->{conf}, $_[0]) if defined $_[0]; return vfun('reload'); }

is(version(), 1, 'version 1');
my $old = hold('version', 1);
my $gone = hold('other', 1);

# A new program
install(2);
is(version(), 1, 'a new file changes nothing by itself');
my $r = reload();
is($r->{status}, 0, 'vfun reload') or diag($r->{err}, $d->log);
like($r->{out}, qr/^reloaded: 3 functions$/, 'says what there is');
is(version(), 2, 'new instances have the new program');
my $new = hold('version', 2);

# Functions that come and go; numbers change, clients notice nothing
is(reload(conf(text => function('fresh') . function('version'), functions => 'fresh version factorial'))->{status}, 0, 'one function more, one less');
is(version('fresh'), 2, 'the new one');
is(version('version'), 2, 'the one that stayed');
is(call('factorial', 5)->{out}, "120\n", 'and the built-in one');
like(call('other', 0)->{err}, qr/no function 'other'/, 'the old one is not to be had any more');
unlike(vfun('list')->{out}, qr/^other/m, 'nor seen');
like(vfun('status')->{out}, qr/\bother\b/, 'but for the instance that has it');
let_go($gone);
is(reload(conf())->{status}, 0, 'it comes back');
is(version('other'), 2, 'as it is now');

# Quotas
is(reload(conf(host => "instances = 2\n"))->{status}, 0, 'a quota');
like(call('version', 0)->{err}, qr/as many instances as vfun\.conf allows/, 'is in force');
my $late = start([client('client'), 'grant', 'version']);
ok(wait_until(10, sub { slurp($late->{out}) =~ /granted/ }), 'a function is granted, and not yet used');
is(reload(conf(functions => 'factorial', host => "instances = 50\n"))->{status}, 0, 'functions of a client');
like(call('version', 0)->{err}, qr/doesn't give version to this client/, 'too');
kill 'USR1', $late->{pid};
like(finish($late, 20)->{out}, qr/^ok denied: vfun\.conf doesn't give version to this client$/m, 'whatever was granted before');
is(reload(conf())->{status}, 0, 'as it was');

# What is wrong
for my $case (
	['a key that is none', conf(more => "[vfund]\nnosuch = 1\n"), qr/faults: 1; line 2: 'nosuch' is not a key/],
	['a program that is not there', conf(more => "[function bad]\nbackend = program\nprogram = /nosuch\n"), qr/faults: 1; line 1: \[function bad\]: program \/nosuch/],
	['a program that hangs', conf(more => "[function hangs]\nbackend = program\nready-timeout = 300\nprogram = " . program('bad') . "\n"), qr/faults: 1; line 1: \[function hangs\]/],
	['nothing at all', '', qr/nothing is changed, faults: 1/],
	)
{
	my ($name, $text, $sentence) = @$case;
	my $before = length $d->log;
	$r = reload($text);
	is($r->{status}, 3, "$name: refused");
	like($r->{err}, $sentence, 'with the first fault');
	my @lines = grep { !/instance \d/ } split /\n/, substr $d->log, $before;
	is(scalar @lines, 1, 'one line in the log') or diag(@lines);
	is(version(), 2, 'and nothing is changed');
}
unlink $d->{conf};
like(vfun('reload')->{err}, qr/it can't be read: No such file/, 'no vfun.conf');
like(reload(conf(more => "[vm more]\nfunctions = version\n"))->{out}, qr/needs a restart/, 'a new VM takes a restart, which is said');

# Not everybody may
$r = run([$VFUN, 'reload'], as => [65534, 65534]);
is($r->{status}, 3, 'a user who is no administrator') or diag($r->{err});
like($r->{err}, qr/only vfund's administrator/, 'is told so');

# SIGHUP
install(3);
my $lines = () = $d->log =~ /reload: /g;
kill 'HUP', $d->{job}{pid};
ok(wait_until(20, sub { (() = $d->log =~ /reload: /g) > $lines }), 'SIGHUP');
is(version(), 3, 'does the same');
my $slow = conf(more => "[function hangs]\nbackend = program\nready-timeout = 2000\nprogram = " . program('bad') . "\n");
install(4);
spew($d->{conf}, $slow);
$lines = () = $d->log =~ /SIGHUP: reading/g;
kill 'HUP', $d->{job}{pid};
ok(wait_until(20, sub { (() = $d->log =~ /SIGHUP: reading/g) > $lines }), 'a file whose reading takes two seconds');
spew($d->{conf}, conf());
kill 'HUP', $d->{job}{pid};
ok(wait_until(20, sub { version() == 4 }), 'SIGHUP meanwhile: it is read once more') or diag($d->log);
like($d->log, qr/SIGHUP: reading \S+ again, once that is over/, 'as it says');

# A new engine
my ($engine) = grep { $_->[1] eq 'vfun-engine' || $_->[1] =~ /engine/ } descendants($d->{job}{pid});
is(reload(conf(text => function('fresh') . function('version'), functions => 'fresh version factorial'))->{status}, 0, 'other functions again');
my ($pid) = $d->log =~ /.*vfun-engine\[(\d+)\]/s;
kill 'KILL', $pid;
ok(wait_until(10, sub { $d->log =~ /vfun-engine engine.* died/ }), 'its engine is killed');
is(version('fresh'), 4, 'its successor knows the functions');
like(call('other', 0)->{err}, qr/no function 'other'/, 'and which there are no more');

# Crashes are forgotten
my $bad = "[function crash]\nbackend = program\nprogram = " . program('bad') . "\n";
is(reload(conf(more => $bad, functions => 'version crash factorial'))->{status}, 0, 'a program that crashes');
call('crash', 1) for 1 .. 5;
like(call('crash', 0)->{err}, qr/crashed too often/, 'is refused');
is(reload()->{status}, 0, 'read again');
is(call('crash', 0)->{status}, 0, 'it is tried again');

let_go($old);
let_go($new);
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
forget($d->{log});    # of crashes
done_testing();
