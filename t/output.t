#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# output.t - vfun call exits with 0 only if the whole result has been written: standard output that is full, closed, a pipe
# that nobody reads; -o FILE where there is no room, or no right; what was in the file stays until the result is there
use strict;
use warnings;
use lib 't/lib';
use Test::More;
use Vfun;

my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, VFUN => $VFUN);
srand 1;
my $big = spew(tmp('big'), pack 'L*', map { rand 2**32 } 1 .. 100_000);
my $small = 'a result';
mkdir tmp('out');
my $out = tmp('out/file');

sub shell {
	my ($script, %o) = @_;
	return run(['sh', '-c', $script], env => { %env, BIG => $big, OUT => $out }, %o);
}

# What is in the folder after that, but for the file itself.
sub litter { return join ' ', grep { $_ ne $out } glob tmp('out') . '/{.*[!.],*}'; }

is(shell('$VFUN call zstd $BIG | zstd -dc | cmp - $BIG')->{status}, 0, 'to a pipe: the whole result');

for my $case (
	['full', 'sha256 $BIG >/dev/full'],
	['full, and long', 'zstd $BIG >/dev/full'],
	['full: a number', 'factorial 2000 >/dev/full'],
	['full: JSON', '-j factorial 5 >/dev/full'],
	['full: JSON beside a file', '-j -o $OUT zstd $BIG >/dev/full'],
	['closed', 'sha256 $BIG >&-'],
	['closed, with the others', 'sha256 $BIG >&- <&-'],
	['for reading only', 'sha256 $BIG >&- 1</dev/null'],
) {
	my ($what, $line) = @$case;
	my $r = shell("\$VFUN call $line");
	is($r->{status}, 8, "standard output: $what");
	like($r->{err}, qr/^vfun call: standard output: /, 'a sentence');
}
is(shell(q(trap '' PIPE; { sleep 0.2; $VFUN call zstd $BIG; echo $? >$OUT; } | :; sleep 0.1; cat $OUT))->{out}, "8\n",
	'a pipe that nobody reads, SIGPIPE ignored');
is(shell('{ sleep 0.2; $VFUN call zstd $BIG; echo $? >$OUT; } | :; sleep 0.1; cat $OUT')->{out}, "141\n", 'a pipe that nobody reads');
unlink $out;

# -o
is(shell('umask 027; $VFUN call -o $OUT zstd $BIG && zstd -dc $OUT | cmp - $BIG')->{status}, 0, '-o: the whole result');
is((stat $out)[2] & 07777, 0640, 'with the mode of a new file');
chmod 0604, $out;
is(shell('$VFUN call -o $OUT sha256 $BIG')->{status}, 0, 'another one in its place');
is((stat $out)[2] & 07777, 0604, 'with the mode of the old one');
is(litter(), '', 'and nothing beside it');

# No room: a limit of file sizes, which would otherwise kill it in the middle.
spew($out, $small);
my $r = shell('ulimit -f 8; $VFUN call -o $OUT zstd $BIG');
is("$r->{status} " . slurp($out) . litter(), "8 $small", '-o: a limit of file sizes') or diag($r->{err});
like($r->{err}, qr/^vfun call: \Q$out\E: File too large/, 'a sentence');
link $out, tmp('other');
is(shell('ulimit -f 8; $VFUN call -o $OUT zstd $BIG')->{status}, 8, 'of a file with two names');
is(slurp($out) . litter(), '', 'which is empty then, not half');
is(shell('$VFUN call -o $OUT factorial 5')->{status} . slurp(tmp('other')), "0120\n", 'and written to under both');
unlink $out;
symlink tmp('other'), $out;
unlink tmp('other');
is(shell('$VFUN call -o $OUT factorial 5')->{status} . slurp(tmp('other')), "0120\n", 'through a link to nothing');
is(shell('$VFUN call -o $OUT factorial 4')->{status} . slurp(tmp('other')), "024\n", 'through a link');
ok(-l $out, 'which stays one');
unlink $out, tmp('other');

is(shell('$VFUN call -o /dev/full zstd $BIG')->{status}, 8, '-o: a full device');
is(shell('$VFUN call -o /dev/null zstd $BIG')->{status}, 0, '-o: a device');
is(shell('$VFUN call -o /dev/stdout factorial 5 | cat')->{out}, "120\n", '-o: a pipe');
is(shell('$VFUN call -o $OUT/nowhere factorial 5')->{status}, 8, '-o: no such folder');
unlink $out;
is(shell('$VFUN call -o $OUT factorial nonsense')->{status} . (-e $out ? 'there' : 'missing'), '2missing', '-o: a call that fails makes no file');

SKIP: {
	skip 'needs root', 3 if $>;
	my $tmpfs = 'mount -t tmpfs -o size=64k tmpfs ' . tmp('out') . ' && printf old >$OUT && { $VFUN call -o $OUT zstd $BIG; echo $? $(cat $OUT) $(ls ' . tmp('out') . '); }';
	$r = run(['unshare', '-m', 'sh', '-c', $tmpfs], env => { %env, BIG => $big, OUT => $out });
	is($r->{out}, "8 old file\n", '-o: a full file system');
	like($r->{err}, qr/No space left/, 'a sentence');
	# One's own file in a folder of root's.
	spew($out, 'old');
	chown 65534, 65534, $out;
	$r = run(['setpriv', '--reuid', 65534, '--regid', 65534, '--clear-groups', $VFUN, 'call', '-o', $out, 'factorial', '5'],
		env => \%env);
	is("$r->{status} " . slurp($out), "0 120\n", '-o: where no other name can be made') or diag($r->{err});
}

is_deeply([$d->down], [], 'vfund stops and leaves nothing');
done_testing();
