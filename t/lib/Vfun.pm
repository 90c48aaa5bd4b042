# SPDX-License-Identifier: MIT
#
# Vfun.pm - what the tests share: programs with a time-out, vfund, guests, and leaving nothing behind
#
# The test process is a subreaper: whatever it started, however indirectly, is below it in the process tree, so that
# "nothing is left" can be asked exactly, and cleaned up by pid at the end, whatever happened. No other process is ever
# touched.
#
#	my $r = run(['build/vfun', '--version']);	# $r->{status}, {out}, {err}, {seconds}; or {timeout}
#	my $job = start([...]); ...; my $r = finish($job, 30);
#	my $d = Vfun->new(conf => $text); $d->up; ...; $d->down;
#	my $job = $d->guest('tree', ['vfun', 'call', 'factorial', '51'], '--path', 'dax');
#
# A sanitizer's report in what any program said, or vfund's word that a process of its own died of SIGSYS, SIGSEGV or SIGABRT,
# fails the test, whatever else it says: a successor may have made it good. In `make check SANITIZE=1`
# everything on the host is built with sanitizers; a guest gets the static build instead ($BUILD/guest), in which undefined
# behaviour is an illegal instruction.
package Vfun;

use strict;
use warnings;

use Cwd qw(getcwd);
use Exporter qw(import);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use POSIX qw(WNOHANG);
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(requires run start finish vfun in_tree vfun_here make client guest_client program guest_args guest_vfun sanitized tmp slurp spew forget descendants still wait_until
	$VFUN $TREE $BUILD $SANITIZE);

our $BUILD = $ENV{VFUN_BUILD} || 'build';
our $TREE = $ENV{VFUN_TREE} || 'build/tree';
our $VFUN = "$BUILD/vfun";
our $SANITIZE = $ENV{VFUN_SANITIZE} || '';
$ENV{VFUN_ACCEL} //= -e "$BUILD/accel" ? slurp("$BUILD/accel") =~ s/\n//r : '';    # written by t/lib/accel

my $owner = $$;
my $tmp = tempdir('/tmp/vt-XXXXXX');    # short: a socket's path has 108 bytes
chmod 0711, $tmp;                       # services have other uids
my %done;                               # pid => wait status
my $files = 0;
my %said;                               # files that programs wrote
my $report = qr/(?:Address|Leak|Thread)Sanitizer|runtime error: |(?:died|ended): signal (?:31|11|6)\b/;

# Leaks are looked for where that is possible, see t/lib/sanitize.c.
$ENV{ASAN_OPTIONS} = 'detect_leaks=1' if $SANITIZE;

# prctl(PR_SET_CHILD_SUBREAPER, 1) on x86-64.
syscall(157, 36, 1, 0, 0, 0) == 0 or die "prctl: $!";

# Does this machine have it? Where skipping is not allowed (VFUN_NO_SKIP, as `make check` sets it for root), a missing
# thing is a failure.
sub requires {
	my %have = (
		root => sub { $> == 0 },
		user => sub { $> != 0 || getpwnam('nobody') },
		qemu => sub { system('command -v qemu-system-x86_64 >/dev/null') == 0 },
		kernel => sub { kernel() ne '' },
		tree => sub { -x "$TREE/qemu" && -e "$TREE/kernel/vmlinuz" },
		clang => sub { system('command -v clang >/dev/null') == 0 },
		locales => sub { -e '/usr/share/i18n/locales/de_DE' && system('command -v localedef >/dev/null') == 0 },
		spin => sub { system('command -v spin >/dev/null') == 0 },
		xrt => sub { -e "$TREE/usr/lib/x86_64-linux-gnu/libxrt_swemu.so.2" && system('command -v verilator >/dev/null') == 0 },
		libvirt => sub { -x "$TREE/usr/sbin/libvirtd" && -x '/usr/sbin/libvirtd' && -x '/bin/busybox' },
		mandoc => sub { system('command -v mandoc >/dev/null') == 0 },
	);
	for my $what (@_) {
		die "requires: '$what' is unknown" if !$have{$what};
		next if $have{$what}->();
		BAIL_OUT("$0 needs $what, and VFUN_NO_SKIP is set") if $ENV{VFUN_NO_SKIP};
		plan skip_all => "needs $what";
	}
	return;
}

sub tmp { return $tmp . (@_ ? "/$_[0]" : ''); }

sub slurp {
	my ($path) = @_;
	open(my $f, '<:raw', $path) or return '';
	local $/ = undef;
	my $text = <$f>;
	return $text // '';
}

# What this file says is what the test is about.
sub forget {
	delete $said{ $_[0] };
	return;
}

sub spew {
	my ($path, $text) = @_;
	open(my $f, '>:raw', $path) or die "$path: $!";
	print {$f} $text;
	close($f) or die "$path: $!";
	return $path;
}

# Poll until the code is true, at most so many seconds.
sub wait_until {
	my ($seconds, $code) = @_;
	my $end = time + $seconds;
	while (1) {
		reap();
		my $r = $code->();
		return $r if $r || time > $end;
		sleep 0.02;
	}
}

sub reap {
	while ((my $pid = waitpid(-1, WNOHANG)) > 0) {
		$done{$pid} = $?;
	}
	return;
}

# Start a program: stdin (bytes), env (hash), as ([uid, gid]), log (both streams, to that file). Returns a job.
sub start {
	my ($argv, %o) = @_;
	my $n = ++$files;
	my %job = (argv => $argv, out => tmp("$n.out"), err => tmp("$n.err"), since => time);
	$job{out} = $job{err} = $o{log} if $o{log};
	$said{ $job{$_} } = 1 for qw(out err);
	my $in = defined $o{stdin} ? spew(tmp("$n.in"), $o{stdin}) : '/dev/null';
	my $pid = fork // die "fork: $!";
	if (!$pid) {
		open(STDIN, '<', $in) or POSIX::_exit(126);
		open(STDOUT, '>>', $job{out}) or POSIX::_exit(126);
		open(STDERR, '>>', $job{err}) or POSIX::_exit(126);
		$ENV{$_} = $o{env}{$_} for keys %{ $o{env} // {} };
		if ($o{as}) {
			my ($uid, $gid) = @{ $o{as} };
			$) = "$gid $gid";
			POSIX::setgid($gid) && POSIX::setuid($uid) or POSIX::_exit(126);
		}
		no warnings 'exec';
		exec { $argv->[0] } @$argv or POSIX::_exit(127);
	}
	$job{pid} = $pid;
	return \%job;
}

# Wait for a job, at most so many seconds; then it is killed, and {timeout} is set.
sub finish {
	my ($job, $seconds) = @_;
	my $pid = $job->{pid};
	wait_until($seconds // 120, sub { exists $done{$pid} });
	if (!exists $done{$pid}) {
		$job->{timeout} = 1;
		diag("killed after a time-out: @{ $job->{argv} }");
		kill 'KILL', $pid;
		wait_until(5, sub { exists $done{$pid} });
	}
	my $status = $done{$pid} // 9;
	$job->{status} = $status & 127 ? 128 + ($status & 127) : $status >> 8;
	$job->{seconds} = time - $job->{since};
	$job->{stdout} = slurp($job->{out});
	$job->{stderr} = slurp($job->{err});
	return { %$job, out => $job->{stdout}, err => $job->{stderr} };
}

sub run {
	my ($argv, %o) = @_;
	return finish(start($argv, %o), $o{timeout});
}

# run() of this executable.
sub vfun {
	return run([$VFUN, @_]);
}

# make, in the build that is tested. True if it succeeds.
sub make {
	my $r = run(['make', '-s', "O=$BUILD", $SANITIZE ? 'SANITIZE=1' : (), @_], env => { MAKEFLAGS => '' }, timeout => 600);
	diag($r->{err}) if $r->{status};
	return !$r->{status};
}

# A test client, t/lib/NAME.c, built once: its path. For the host it is built as vfun is, for a guest it is static.
sub client {
	my ($name) = (@_, 'client');
	return build($name, $name, $SANITIZE ? ('-g', '-fsanitize=address,undefined', '-fno-sanitize-recover=all') : '-static');
}

sub guest_client {
	my ($name) = (@_, 'client');
	return client($name) if !$SANITIZE;
	return build("guest-$name", $name, qw(-static -fsanitize=undefined -fsanitize-undefined-trap-on-error));
}

sub build {
	my ($as, $name, @flags) = @_;
	my $path = tmp($as);
	return $path if -x $path;
	my $r = run(['gcc', qw(-O2 -std=gnu11 -D_GNU_SOURCE -pthread), @flags, '-o', $path, "t/lib/$name.c",
		glob('proto/{client,control,path,channel,buffer,ivshmem,net,netauth,netframe,plain}.c'), '-lnettle']);
	BAIL_OUT("t/lib/$name.c: $r->{err}") if $r->{status};
	return $path;
}

# A program of t/programs, a function of its own: its path. What the address sanitizer does at a program's end its profile
# doesn't allow: undefined behaviour is an illegal instruction.
sub program {
	my ($name, @flags) = @_;
	my $path = tmp(join('', 'program-', $name, @flags) =~ tr{/}{_}r);
	return $path if -x $path;
	my @san = $SANITIZE ? ('-fsanitize=undefined', '-fsanitize-undefined-trap-on-error') : ();
	my $r = run(['gcc', qw(-O2 -std=gnu11 -D_GNU_SOURCE -DVFUN_LIBRARY -Wall -Wextra -pthread), @san, @flags, '-o', $path, "t/programs/$name.c",
		glob('proto/{program,serve,signature,fit}.c')]);
	BAIL_OUT("t/programs/$name.c: $r->{err}") if $r->{status} || $r->{err};
	return $path;
}

# The folder of the build with SANITIZE=1, which is made if it isn't the one that is tested.
sub sanitized {
	return $BUILD if $SANITIZE;
	my $r = run(['make', '-j2', 'SANITIZE=1', "O=$BUILD/sanitize", "$BUILD/sanitize/vfun"], env => { MAKEFLAGS => '' }, timeout => 300);
	BAIL_OUT("make SANITIZE=1: $r->{err}") if $r->{status};
	return "$BUILD/sanitize";
}

# Living processes below this one (or below `root`), as [pid, name].
sub descendants {
	my ($root) = @_;
	my (%name, %children);
	reap();
	for my $stat (glob '/proc/[0-9]*/stat') {
		my $text = slurp($stat);
		next if $text !~ /^(\d+) \((.*)\) (\S) (\d+) /s || $3 eq 'Z';
		$name{$1} = $2;
		push @{ $children{$4} }, $1;
	}
	my @found;
	my @todo = ($root // $$);
	while (@todo) {
		my $children = $children{ shift @todo } or next;
		push @todo, @$children;
		push @found, map { [$_, $name{$_}] } @$children;
	}
	return @found;
}

# The machine's own kernel, or the one unpacked from its package.
sub kernel {
	my $path = `t/lib/kernel build/kernel`;
	chomp $path;
	return $path;
}

# Options of `vfun vm` for the machine's own QEMU and kernel ('own'), or for the newer ones ('tree').
sub guest_args {
	my ($which) = @_;
	return ('--qemu', "$TREE/qemu", '--kernel', "$TREE/kernel/vmlinuz", guest_vfun()) if $which eq 'tree';
	return ('--kernel', kernel(), guest_vfun());
}

# What takes the place of `vfun vm`'s own executable in a guest.
sub guest_vfun { return $SANITIZE ? ('--add', "$BUILD/guest/vfun:/vfun") : (); }

# What runs a command with the libraries of $TREE: that folder is its root, but for this test's temporary folder, which is
# where it is outside. Mounts are its own and go with it. Not a chroot: who is in one gets no user namespace.
sub in_tree {
	my ($as, @argv) = @_;
	my $script = 'set -e; t=$1; d=$2; shift 2; mkdir -p "$t$d"; mount --bind "$t" "$t"; mount -t proc none "$t/proc"; '
		. 'mount --rbind /sys "$t/sys"; mount --bind /dev "$t/dev"; mount --bind "$d" "$t$d"; cd "$t"; pivot_root . mnt; umount -l /mnt; exec "$@"';
	my @as = $as ? ('setpriv', '--reuid', $as->[0], '--regid', $as->[1], '--clear-groups') : ();
	return ('unshare', '-m', '--propagation', 'private', 'sh', '-c', $script, 'sh', $TREE, $tmp, @as, @argv);
}

# A vfund with its own run folder. conf: the text of vfun.conf; without, the one in the tree. as, stdin: as for start();
# tree: it runs with $TREE's libraries; wrap: a command that runs it.
sub new {
	my ($class, %o) = @_;
	my $name = 'd' . ++$files;
	my $self = bless { run => tmp($name), conf => tmp("$name.conf"), log => tmp("$name.log"), as => $o{as}, stdin => $o{stdin}, tree => $o{tree}, wrap => $o{wrap} // [] }, $class;
	spew($self->{conf}, $o{conf} // slurp('vfun.conf'));
	if ($o{as}) {
		mkdir $self->{run} or die "$self->{run}: $!";
		chown @{ $o{as} }, $self->{run};
	}
	return $self;
}

# This executable, in the temporary folder, for in_tree(). Where it needs this machine's sanitizers, the one for guests.
sub vfun_here {
	my $path = tmp('vfun.here');
	run(['cp', $SANITIZE ? "$BUILD/guest/vfun" : $VFUN, $path]) if !-e $path;
	return $path;
}

# Start it and wait until it answers. True if it does.
sub up {
	my ($self, @args) = @_;
	my @as = $self->{as} ? (as => $self->{as}) : ();
	my @argv = ('daemon', '-c', $self->{conf}, '--run', $self->{run}, @args);
	@argv = $self->{tree} ? in_tree($self->{as}, vfun_here(), @argv) : (@{ $self->{wrap} }, $VFUN, @argv);
	@as = () if $self->{tree};
	$self->{job} = start([@argv], log => $self->{log}, stdin => $self->{stdin}, @as);
	my $up = wait_until(20, sub { -S "$self->{run}/control" || exists $done{ $self->{job}{pid} } });
	return 1 if $up && -S "$self->{run}/control";
	diag('vfund does not start: ' . slurp($self->{log}));
	return 0;
}

# Stop it by SIGTERM. Returns what it left: an empty list is good.
sub down {
	my ($self) = @_;
	my $pid = $self->{job}{pid};
	my %its = map { $_->[0] => 1 } descendants($pid);
	my $living = sub { grep { $its{ $_->[0] } } descendants() };
	my @left;
	kill 'TERM', $pid;
	my $r = finish($self->{job}, 20);
	push @left, 'vfund itself, which had to be killed' if $r->{timeout};
	push @left, "vfund's status $r->{status}" if $r->{status} != 0;
	wait_until(3, sub { !$living->() });
	push @left, map { "process $_->[0] $_->[1]" } $living->();
	push @left, map { "socket $_" } sockets($self->{run});
	push @left, grep { m{\Q$self->{run}\E} } split /\n/, slurp('/proc/self/mountinfo');
	diag("vfund left: $_") for @left;
	diag(slurp($self->{log})) if @left;
	return @left;
}

sub sockets {
	my ($dir) = @_;
	my @found;
	for my $path (glob "$dir/*") {
		push @found, $path if -S $path;
		push @found, sockets($path) if -d $path && !-l $path;
	}
	return @found;
}

# Living processes below this one whose name matches: after a moment, since what a parent leaves may be about to end.
sub still {
	my ($name) = @_;
	my @left;
	wait_until(10, sub { !(@left = map { "$_->[0] $_->[1]" } grep { $_->[1] =~ $name } descendants()) });
	return @left;
}

# Run a command in a guest of this vfund, in the background: a job. which: see guest_args(). Options of `vfun vm` may
# follow; a command of undef needs --script.
sub guest {
	my ($self, $which, $command, @args) = @_;
	return start([$VFUN, 'vm', '--run', $self->{run}, guest_args($which), '--timeout', 120, @args,
		$command ? ('--', @$command) : ()]);
}

# What vfund wrote so far.
sub log {
	my ($self) = @_;
	return slurp($self->{log});
}

END {
	if ($$ == $owner) {
		my $status = $?;
		for my $signal ('TERM', 'KILL') {
			my @left = descendants() or last;
			kill $signal, map { $_->[0] } @left;
			wait_until(3, sub { !descendants() });
		}
		my @reports = grep { slurp($_) =~ $report } sort keys %said;
		diag("a report:\n" . substr(slurp($_), 0, 8000)) for @reports;
		remove_tree($tmp);
		rmdir "$TREE$tmp";
		$? = $status || (@reports ? 99 : 0);
	}
}

1;
