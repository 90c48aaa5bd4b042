#!/usr/bin/perl
# SPDX-License-Identifier: MIT
#
# call-ends.t - vfun call while somebody ends its instance, at random, in whatever window: kills the service, releases the
# instance, stops vfund. What exits with 0 has written the right result; what doesn't has written none to its file. And
# vfun.py, whose answers and arrays stay readable. (t/ending.t is the same for C)
use strict;
use warnings;
use lib 't/lib';
use JSON::PP;
use Test::More;
use Time::HiRes qw(sleep);
use Python;
use Vfun;

my $calls = $ENV{VFUN_CALLS} || 60;
my $d = Vfun->new;
ok($d->up, 'vfund starts') or BAIL_OUT('no vfund');
my %env = (VFUN_RUN_DIR => $d->{run}, PYTHONPATH => 'proto', PYTHONDONTWRITEBYTECODE => 1);
$ENV{VFUN_RUN_DIR} = $d->{run};
srand 1;
my $big = spew(tmp('big'), pack 'L*', map { rand 2**32 } 1 .. 500_000);
is(vfun('call', '-o', tmp('right'), 'zstd', $big)->{status}, 0, 'what is right');
my $number = vfun('call', 'factorial', 2050)->{out};

sub instances { return map { $_->{instance} } @{ decode_json(vfun('status', '--json')->{out} || '{"instances":[]}')->{instances} }; }
sub services { return map { $_->[0] } grep { $_->[1] eq 'vfun-service' } descendants($d->{job}{pid}); }

# Calls, one after the other, until there were so many and enough were ended: what each said.
spew(tmp('loop'), <<'END');
i=0
while [ $i -lt $1 ] || { [ ! -e "$2/enough" ] && [ $i -lt $(($1 * 20)) ]; }; do
	i=$((i + 1))
	rm -f "$2/out"
	"$VFUN" call -o "$2/out" zstd "$2/big" $3 2>/dev/null
	status=$?
	if [ -e "$2/out" ]; then cmp -s "$2/out" "$2/right" && wrote=right || wrote=wrong; else wrote=nothing; fi
	echo "$status $wrote"
	number=$("$VFUN" call factorial 2050 $3 2>/dev/null)
	status=$?
	[ "$number" = "$NUMBER" ] && wrote=right || wrote=nothing
	[ -z "$number" ] || [ $wrote = right ] || wrote=wrong
	echo "$status $wrote"
done
echo end
END

sub storm {
	my ($what, $times, $pause, $end) = @_;
	my $job = start(['sh', tmp('loop'), $calls, tmp(), $times], env => { %env, VFUN => $VFUN, NUMBER => $number =~ s/\n//r });
	my $ends = 0;
	unlink tmp('enough');
	while (slurp($job->{out}) !~ /^end$/m && kill 0, $job->{pid}) {
		sleep $pause * rand;
		my ($pid) = services();
		$ends += $end->($pid) ? 1 : 0 if $pid;
		spew(tmp('enough'), '') if $ends == 3;
	}
	my $r = finish($job, 120);
	my %said;
	$said{$_}++ for split /\n/, $r->{out};
	note("$what: $ends ends: ", join ', ', map { "$_: $said{$_}" } sort keys %said);
	is(delete $said{end}, 1, "$what: all calls were made");
	ok($said{'0 right'}, 'some were right');
	ok($ends, 'and some were ended');
	is_deeply([grep { !/^(?:0 right|[1-9]\d* nothing)$/ } keys %said], [], 'none was anything else') or diag(explain(\%said));
	return;
}

storm('its service is killed', 1, 0.1, sub { return kill 'KILL', $_[0]; });
storm('it is released', 10, 0.05, sub {
	my ($instance) = instances();
	return $instance && vfun('release', $instance)->{status} == 0;
});
storm('vfund stops', 1, 0.3, sub { return !$d->down && $d->up; });

# vfun.py
spew(tmp('ends.py'), <<'END');
import math
import sys
import vfun
with open(sys.argv[1], "rb") as f, open(sys.argv[2], "rb") as g:
    data, right = f.read(), g.read()
with vfun.open("factorial", slots=4) as number, vfun.open("zstd", slots=1, arena=3 << 20) as packed:
    calls = [number.submit(n) for n in (2050, 20, 3)]
    call = packed.submit(data)
    for f, last in (number, calls[-1]), (packed, call):
        while f.inn.load32(f._offset(last.request)) != last.request.seq + 1:
            pass
    print("ready", flush=True)
    for f in number, packed:
        while not f.inn.load32(vfun.GONE):
            pass
    assert [c.result() for c in calls] == [math.factorial(n) for n in (2050, 20, 3)]
    assert bytes(call.result()) == right
    for f in number, packed:
        try:
            f(5) if f is number else f(b"")
        except vfun.Error as e:
            print(e)
END
for my $how ('killed', 'released', 'stopped') {
	my $job = start([host_python(), '-W', 'error', tmp('ends.py'), $big, tmp('right')], env => \%env);
	ok(wait_until(30, sub { slurp($job->{out}) =~ /ready/ }), "vfun.py: its instances are $how");
	my @instances = instances();
	kill 'KILL', services() if $how eq 'killed';
	is(vfun('release', @instances)->{status}, 0, 'by somebody') if $how eq 'released';
	is_deeply([$d->down], [], 'vfund stops') if $how eq 'stopped';
	my $r = finish($job, 30);
	like($r->{out}, qr/^ready\n(?:(?:the service has ended(?:: [^\n]+)?|vfund is gone)\n){2}$/, 'what was answered is taken, and new calls fail');
	is("$r->{status} $r->{err}", '0 ', 'and no word else') or diag($d->log);
}
done_testing();
