#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# log.t - vfund never waits for its log: a reader that stops, a full disk; what doesn't fit is counted, and later said
#
# Also: a priority stands before a line where standard error is the journal and nowhere else, and strangers' text in a
# line is plain.
use strict;
use warnings;
use lib 't/lib';
use Fcntl qw(F_GETFL F_SETPIPE_SZ O_NONBLOCK O_RDWR);
use IO::Socket::UNIX;
use POSIX qw(mkfifo);
use Test::More;
use Vfun;

my $d = Vfun->new;
$ENV{VFUN_RUN_DIR} = $d->{run};

# vfund whose standard error is this shell redirection. Its job, once it answers.
sub vfund {
	my ($to, %env) = @_;
	my $job = start(['sh', '-c', "exec $VFUN daemon -c $d->{conf} --run $d->{run} $to"], env => \%env, log => $d->{log});
	ok(wait_until(20, sub { -S "$d->{run}/control" && vfun('list')->{status} == 0 }), "vfund starts, $to") or BAIL_OUT('no vfund');
	return $job;
}

sub stops {
	my ($job) = @_;
	kill 'TERM', $job->{pid};
	my $r = finish($job, 20);
	is($r->{timeout} // $r->{status}, 0, 'SIGTERM ends it');
	return;
}

sub calls {
	my @bad = grep { $_->{out} ne "120\n" } map { run([$VFUN, 'call', 'factorial', 5], timeout => 5) } 1 .. $_[0];
	is(scalar @bad, 0, "$_[0] instances come and go") or diag($bad[0]{err});
	return;
}

my $lost = qr/^vfun-engine\[\d+\]: warning: (\d+) lines? of log did not fit and (?:is|are) lost/m;

# A pipe whose reader stops.
mkfifo(tmp('pipe'), 0600);
sysopen(my $pipe, tmp('pipe'), O_RDWR | O_NONBLOCK) or die "pipe: $!";
fcntl($pipe, F_SETPIPE_SZ, 4096) == 4096 or die "pipe: $!";
my $job = vfund('2>' . tmp('pipe'));
calls(40);
ok(!(slurp("/proc/$job->{pid}/fdinfo/2") =~ /^flags:\s+0*(\d+)/m && oct($1) & O_NONBLOCK), 'the flags of what it shares with others are left alone');
my $text = '';
my $more = sub { sysread($pipe, $text, 65536, length $text); return $text =~ $lost; };
ok(wait_until(10, $more), 'its reader comes back: so many lines are lost') or diag($text);
like($text, qr/^vfund\[\d+\]: ready:.*vfun-engine\[\d+\]: instance.*did not fit/ms, 'said after what fitted');
unlike($text, qr/^(?!vfun|.*\d+ VMs).+$/m, 'and no line is torn');
kill 'HUP', $job->{pid};
ok(wait_until(5, sub { $more->(); $text =~ /did not fit.*vfund\[\d+\]: SIGHUP: reading /s }), 'and then the next ones') or diag($text);
stops($job);

# A full disk.
$job = vfund('2>/dev/full');
calls(2);
stops($job);

# Where there is a journal
my $file = tmp('stderr');
spew($file, '');
my ($dev, $ino) = (stat $file)[0, 1];
for my $case (['of another file', $dev . ':' . ($ino + 1), 0], ['that is no such thing', '1', 0], ["standard error's", "$dev:$ino", 1]) {
	my ($name, $stream, $is) = @$case;
	$job = vfund("2>$file", JOURNAL_STREAM => $stream);
	calls(1);
	stops($job);
	my ($with, $without) = (scalar(() = slurp($file) =~ /^<\d>vfun/mg), scalar(() = slurp($file) =~ /^vfun/mg));
	ok($is ? $with && !$without : !$with && $without, "JOURNAL_STREAM $name: " . ($is ? 'each line has its priority' : 'no line has one'));
}

# Lines that anybody who may open a VM's socket can cause without end.
ok($d->up && wait_until(10, sub { -S "$d->{run}/vmcli/demo/share.sock" }), 'vfund starts');
my ($n, $end) = (0, time + 3);
while (time < $end) {
	my $s = IO::Socket::UNIX->new(Peer => "$d->{run}/vmcli/demo/share.sock") or last;
	$n++;
}
cmp_ok($n, '>', 16, "$n connections to a VM's socket");
is(vfun('call', 'factorial', 5)->{out}, "120\n", 'others are served');
cmp_ok(scalar(() = $d->log =~ /\n/g), '<', 250, 'cause no more lines than any client may');
ok(wait_until(30, sub { my $s = IO::Socket::UNIX->new(Peer => "$d->{run}/vmcli/demo/share.sock"); wait_until(1, sub { grep { $_->[1] eq 'vfun-share' } descendants() }) }), 'and the next one is let in after a while');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');

# Strangers' text: ESC, U+009B as UTF-8 and as a byte, a character that reverses what follows; letters stay.
my $name = "a\e[2J\xc2\x9b2J\x9bx\xe2\x80\xaey\xc3\xa9";
ok($d->up('-v'), 'vfund says more');
is(vfun('call', $name, 5)->{err}, "vfun call: $name: there is no function 'a?[2J??2J?x???y\xc3\xa9': see vfun list [unknown-function]\n", 'a client shows it plain');
like($d->log, qr/there is no function 'a\?\[2J\?\?2J\?x\?\?\?y\xc3\xa9'/, 'so does the log');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
