#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# program.t - functions that are programs: calls from the host and a guest, what they may do, and everything that one can do
# wrong, each with its own reason and sentence, while a second client of another function notices nothing
use strict;
use warnings;
use lib 't/lib';
use POSIX qw(mkfifo);
use Test::More;
use Vfun;

requires('root', 'qemu', 'kernel');

my $bad = program('bad');
my %more = (
	never => 'ready-timeout = 500',
	late => 'call-timeout = 400',
	reads => "syscalls = openat read close\nfiles = /usr/lib/os-release",
	eats => 'overhead = 64M',
);
my @wrong = qw(refuses never liar mute babbles forges leaks wide outside scribbles late flood crash quits calls reads eats fine sizes threads);

sub function { return join '', map { "[function $_]\nbackend = program\nprogram = $bad\n" . ($more{$_} // '') . "\n" } @_; }
my $conf = "[function square]\nbackend = program\nprogram = " . program('square') . "\nworkers = 2\n"
	. "[function static]\nbackend = program\nprogram = " . program('square', '-static') . "\n"
	. "[function raw]\nbackend = program\nprogram = " . program('raw', '-static') . "\n"
	. join('', map { "[function $_]\nbackend = program\nprogram = " . program('results') . "\n" } 'tail', 'fill', 'sum')
	. function(@wrong) . "[host]\nfunctions = tail fill sum square static raw @wrong\ninstances = 100\n[vm demo]\nfunctions = square raw\n";

# Before vfund starts
sub check {
	my ($text) = @_;
	return run([$VFUN, 'daemon', '-n', '-c', spew(tmp('n.conf'), $text)], timeout => 30);
}
my $one = sub { my ($path, @lines) = @_; return join "\n", '[function square]', 'backend = program', "program = $path", @lines, ''; };

is(check($conf)->{err}, '', 'programs that say what they are');
run(['cp', program('square'), tmp('copy')]);
mkdir tmp('folder');
mkdir tmp('sub');
run(['cp', program('square'), tmp('sub/square')]);
symlink tmp('sub'), tmp('link');
symlink tmp('sub/square'), tmp('sub/link');
mkfifo(tmp('fifo'), 0755);
spew(tmp('script'), "#!/bin/sh\necho '-> int'\n");
chmod 0755, tmp('script'), tmp('copy');
for my $case (
	[qr/\Q${\tmp('copy')}\E may be written to by others: chmod go-w/, 'writable by others', sub { chmod 0757, tmp('copy') }, tmp('copy')],
	[qr/may be written to by others/, "writable by its group", sub { chmod 0775, tmp('copy') }, tmp('copy')],
	[qr/is not executable by everybody: chmod 755/, 'not executable', sub { chmod 0644, tmp('copy') }, tmp('copy')],
	[qr/not executable/, 'not by everybody', sub { chmod 0700, tmp('copy') }, tmp('copy')],
	[qr/belongs neither to root nor/, "somebody else's", sub { chmod 0755, tmp('copy'); chown 1000, 1000, tmp('copy') }, tmp('copy')],
	[qr/\Q${\tmp('sub')}\E may be written to by others/, 'in a folder that others may write to', sub { chmod 0777, tmp('sub') }, tmp('sub/square')],
	[qr/\Q${\tmp('sub')}\E belongs neither/, "in somebody else's folder", sub { chmod 0755, tmp('sub'); chown 1000, 0, tmp('sub') }, tmp('sub/square')],
	[qr/symbolic link/, 'a symbolic link', sub { chown 0, 0, tmp('sub') }, tmp('sub/link')],
	[qr/symbolic link/, 'a folder that is one', sub { }, tmp('link/square')],
	[qr/No such file/, 'not there', sub { }, tmp('sub/nosuch')],
	[qr/is not a file/, 'a folder', sub { }, tmp('folder')],
	[qr/is not a file/, 'a pipe', sub { }, tmp('fifo')],
	[qr/not an executable of this machine's/, 'a script', sub { }, tmp('script')],
	[qr/asked --describe it ended: status [12]/, "a program that isn't a function", sub { }, '/usr/bin/false'],
	[qr/which is no signature/, 'one that prints something else', sub { }, '/usr/bin/echo'],
	[qr/to --describe it says '', which is no signature/, 'one that says nothing', sub { }, '/usr/bin/true'],
	)
{
	my ($sentence, $name, $prepare, $path) = @$case;
	$prepare->();
	my $r = check($one->($path));
	is($r->{status}, 2, "$name: vfun daemon -n says so");
	like($r->{err}, qr/n\.conf:1: \[function square\]: program \Q$path\E: .*$sentence/, 'in a sentence of its own');
}
is(check($one->(tmp('sub/square')))->{err}, '', 'and where nothing is wrong, none');
for my $case (
	['silent', '', qr/says '', which is no signature/],
	['fails', '', qr/asked --describe it ended: status 3: I can't/],
	['hangs', 'ready-timeout = 300', qr/has not answered --describe within 300 ms/],
	['nonsense', '', qr/says 'this -> is no signature', which is no signature/],
	['fine', 'signature = n u64 -> int', qr/signature: vfun\.conf says 'n u64 -> int', the program 'n u64 0\.\.1000000000 -> out u8\[\*\]'/],
	['fine', "signature = n u64 0..1000000000\n  -> out u8[*]", undef],
	['fine', 'syscalls = openat nosuchcall', qr/there is no system call 'nosuchcall'/],
	['fine', 'files = etc/passwd', qr/'etc\/passwd' is not a file's name from \/ on/],
	['fine', 'call-timeout = x', qr/call-timeout: 'x' is not a number/],
	)
{
	my ($name, $line, $sentence) = @$case;
	local $more{$name} = $line;
	my $r = check(function($name));
	$sentence ? like($r->{err}, $sentence, "$name, $line: refused") : is($r->{err}, '', "$name, $line");
}
like(check("[function square]\nbackend = program\n")->{err}, qr/backend program needs program/, 'no program at all');
like(check("[function factorial]\nprogram = /x\n")->{err}, qr/are for backend program/, 'a program of a software function');

# What it sees of the host is nobody else's to change either.
mkdir tmp('theirs');
chown 65534, 65534, tmp('theirs');
spew(tmp('theirs/data'), 'x');
symlink('/etc', tmp('link'));
for my $case (['theirs/data', qr/files: \S+theirs belongs neither to root nor/], ['link', qr/files: \S+link is a symbolic link/], ['link/passwd', qr/files: \S+link is .*a symbolic link/]) {
	local $more{fine} = 'files = ' . tmp($case->[0]);
	like(check(function('fine'))->{err}, $case->[1], "files: $case->[0] is refused");
}
mkdir tmp('seen');
$conf =~ s/(?=\n\[function raw\])/"\nfiles = " . tmp('seen')/e;

# While it runs
my $d = Vfun->new(conf => $conf);
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
$ENV{VFUN_RUN_DIR} = $d->{run};
sub call { return vfun('call', @_); }
my $second = start([client('square')]);
ok(wait_until(10, sub { slurp($second->{out}) =~ /ready/ }), 'a second client calls all the time');

spew(tmp('in'), pack 'f<5', 1, 2, 3, 4.5, 100);
for my $f ('square', 'static') {
	my $r = call($f, tmp('in'), '-o', tmp('out'));
	is($r->{status}, 0, "$f") or diag($r->{err}, $d->log);
	is_deeply([unpack 'f<*', slurp(tmp('out'))], [1, 4, 9, 20.25, 10000], 'the squares');
}
rename(tmp('seen'), tmp('was'));
symlink('/etc', tmp('seen'));
like(call('static', tmp('in'), '-o', tmp('out'))->{err}, qr/can't be confined: root/, 'a folder that became a link meanwhile is seen by nobody');
like($d->log, qr/files: \S+seen is a symbolic link/, 'says the log');
my $threads = unpack('Q<', call('threads', 4)->{out}) // diag($d->log);
cmp_ok($threads, '>', 1, "a program has threads, $threads of them");
cmp_ok($threads, '<', 400, 'but not as many as it likes');
spew(tmp('odd'), 'x' x 401);
like(call('square', tmp('odd'), '-o', tmp('out'))->{err}, qr/refuses|fit/, "an input that isn't whole floats is refused");
for my $case (['8 24', '0 ok: '], ['4 0', "0 arguments: the input's offset isn't aligned"], ['0 12', "0 arguments: the room's offset isn't aligned"]) {
	is(run([client('square'), split / /, $case->[0]])->{out}, "$case->[1]\n", "an input and a room at $case->[0]");
}
is(call('raw', 21)->{out} =~ s/\s//gr, '42', "a program that doesn't use vfun_serve()");
is(unpack('Q<', call('fine', 5)->{out}), 5, 'a result of any length');
is(run([client('results')])->{out}, "ok\n", 'results in the slot and in rooms of all sizes, and arrays where the signature wants them');
is(call('--room', 4096, 'sizes', 4)->{out} =~ s/\s//gr, '[[1024,4096,4,0]]', 'whose room is so many elements, of known size where its signature says so');
my $r = call('fine', 99);
is($r->{status}, 1, 'arguments that the function refuses');
like($r->{err}, qr/n: 99 is not to my taste/, 'with its own sentence');

for my $case (
	['refuses', 1, 3, qr/refuses: it can't prepare itself: Cannot allocate memory.*no-resource/, 'it refuses'],
	['never', 1, 3, qr/not get ready in time.*timeout/, 'it never gets ready'],
	['liar', 1, 3, qr/the signature of liar isn't the one that it gave to --describe.*start-failed/, 'it lies about its signature'],
	['mute', 1, 3, qr/mute ended: status 0.*start-failed/, 'it ends without a word'],
	['babbles', 1, 3, qr/babbles doesn't say that it is ready as vfun\.h wants it.*start-failed/, "it doesn't speak the protocol"],
	['forges', 1, 3, qr/: a line\?and \?another \[start-failed\]$/, "it speaks as vfund's own services do"],
	['leaks', 1, 3, qr/leaks ended: status 0.*start-failed/, 'it says nothing, with descriptors'],
	['wide', 1, 3, qr/wide would serve without its second list of system calls.*start-failed/, "it doesn't narrow itself"],
	['outside', 1, 7, qr/gone|ended/, 'it writes outside its room'],
	['scribbles', 255, 0, qr/^$/, "it writes over its ring and header, which are its own client's alone"],
	['raw', 999, 7, qr/the service's answer breaks the protocol/, 'its answer is none'],
	['late', 1, 7, qr/longer than.*call-timeout|late/, 'it returns late'],
	['crash', 1, 7, qr/gone|ended/, 'it crashes'],
	['quits', 7, 7, qr/gone|ended/, 'it ends'],
	['calls', 0, 7, qr/gone|ended/, "it makes a system call that isn't in its profile"],
	['reads', 1, 1, qr/there is no such file here/, 'it looks for a file that it may not see'],
	# The sanitizer's own memory has no bounds.
	$SANITIZE ? () : ['eats', 500_000_000, 1, qr/failed/, 'it takes more memory than it may'],
	)
{
	my ($name, $n, $status, $sentence, $what) = @$case;
	my $before = length $d->log;
	$r = call('--room', '4096', $name, $n);
	is($r->{status}, $status, "$what: exit status $status") or diag($r->{err}, $d->log);
	like($r->{err}, $sentence, 'and its sentence');
}
my $files = sub { my @files = glob "/proc/$d->{job}{pid}/fd/*"; return scalar @files; };
my $had = $files->();
call('leaks', 1) for 1 .. 3;
cmp_ok($files->(), '<=', $had + 2, 'and vfund keeps none of them');
like($d->log, qr/outside crashed: signal 11/, 'a step outside is a crash');
like($d->log, qr/\(crash\).*crash crashed: signal \d+: my last\? words|crash crashed: signal \d+: my last. words/, 'last words reach the log, in plain text');
like($d->log, qr/crash\[uid-0\]: my last. words/, 'as a line, too');
unlike($d->log, qr/\033/, 'without control characters');
like($d->log, qr/quits ended: status 7/, 'a program that ends');
like($d->log, qr/a call of late took longer than 400 ms \(vfun\.conf: call-timeout\)/, 'a call that is late');
like($d->log, qr/calls called socket\(\), which vfun\.conf doesn't allow: syscalls = socket$/m, 'a system call');
like(call('reads', 0, '-o', '/dev/stdout')->{out}, qr/\w/, 'what vfun.conf names, it may call, and see');
is(call('eats', 1_000_000)->{out}, 'ok', 'memory within its bounds');

# In user mode
if (getpwnam('nobody')) {
	my @user = (getpwnam('nobody'))[2, 3];
	my $u = Vfun->new(conf => "[function square]\nbackend = program\nprogram = " . program('square') . "\n[host]\nfunctions = square\n", as => \@user);
	ok($u->up, 'a vfund in user mode');
	$r = run([$VFUN, 'call', '--run', $u->{run}, 'square', '1,2,3'], as => \@user);
	is($r->{out}, "[1,4,9]\n", 'calls') or diag($r->{err}, $u->log);
	$r = run([$VFUN, 'reload', '--run', $u->{run}], as => \@user);
	is($r->{out}, "reloaded: 1 function\n", 'and reads vfun.conf again') or diag($r->{err});
	is_deeply([$u->down], [], 'it leaves nothing');
}

# What an administrator sees of it, and others don't
like(vfun('list', '-v')->{out}, qr/^reads .*\n.*\n    program: \Q$bad\E\n    system calls: [^\n]*; and openat read close\n    files: \/usr\/lib\/os-release\n/m, 'list -v: program, profile, files')
	or diag(vfun('list', '-v')->{out});
like(vfun('list', '-v')->{out}, qr/^late .*(?:\n .*)*\n    call: at most 400 ms/m, 'bounds');
unlike(run([$VFUN, 'list', '-v'], as => [65534, 65534])->{out}, qr/program: /, 'others see no program');

# Crashes: one is waited for, too many are refused, others aren't
for my $i (2 .. 5) {
	$r = call('crash', 1);
	is($r->{status}, 7, "crash $i");
}
$r = call('crash', 0);
is($r->{status}, 3, 'after five of them it is refused');
like($r->{err}, qr/crashed too often within a minute.*crashing/, 'with a reason of its own');
is(call('fine', 5)->{status}, 0, 'another function of the same program is not');
is(run([$VFUN, 'call', '--room', '64', 'crash', 0], as => [65534, 65534])->{status}, 0, 'nor is another user of the host');

# Floods
my $lines = () = $d->log =~ /^.*flood\[uid-0\]: line/mg;
is($lines, 0, 'nothing printed yet');
is(call('flood', 200_000)->{status}, 0, 'a program that floods its log computes all the same');
is(call('flood', 200_000)->{status}, 0, 'and again');
$lines = () = $d->log =~ /^.*flood\[uid-0\]: line/mg;
cmp_ok($lines, '<=', 2 * 60, 'but a minute has few lines, and this has been two at most');
like($d->log, qr/flood\[uid-0\] has printed too much within a minute: no more of it for now/, 'and that is said');

# The second client, a guest, the end
is(finish($d->guest('own', ['vfun', 'call', '--verbose', 'square', '/in', '-o', '/out'], '--add', tmp('in') . ':/in'), 120)->{status}, 0, 'from a guest')
	or diag($d->log);
is(finish($d->guest('own', ['vfun', 'call', 'raw', '21']), 120)->{out} =~ s/\s//gr, '42', "the one that doesn't use vfun_serve() as well");
kill 'TERM', $second->{pid};
$r = finish($second, 20);
is($r->{status}, 0, 'the second client had every answer') or diag($r->{out}, $d->log);
like($r->{out}, qr/^ok \d{2,}$/m, 'and many of them');
unlike(vfun('status')->{out}, qr/\b(?:square|crash|flood)\b/, 'no instance is left');
is_deeply([$d->down], [], 'vfund stops and leaves nothing');
forget($d->{log});    # crashes are what this is about
done_testing();
