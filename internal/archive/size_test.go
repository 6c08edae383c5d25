package archive_test

import (
	"strings"
	"testing"

	"github.com/sealift/sealift/internal/archive"
)

func TestParseSize(t *testing.T) {
	const dvd, dvdDL, bd25, bd50 = 4_700_372_992, 8_547_991_552, 25_025_314_816, 50_050_629_632
	whole := func(n int64) int64 { return n &^ (1<<20 - 1) }
	for _, c := range []struct {
		text   string
		beside int64
		want   int64
	}{
		{"4.7GB", 0, 4_700_000_000},
		{"4.7gb", 0, 4_700_000_000},
		{" 4.7 GB ", 0, 4_700_000_000},
		{"2.01GB", 0, 2010000000}, // not a whole number of bytes as a floating point number
		{"700MiB", 0, 700 << 20},
		{"700mib", 0, 700 << 20},
		{"700M", 0, 700 << 20},
		{"4G", 0, 4 << 30},
		{"4GiB", 0, 4 << 30},
		{"4GB", 0, 4_000_000_000},
		{"1T", 0, 1 << 40},
		{"1TB", 0, 1_000_000_000_000},
		{"1024K", 0, 1 << 20},
		{"1024KiB", 0, 1 << 20},
		{"2000kB", 0, 2_000_000},
		{"1048576", 0, 1 << 20},
		{"1048576B", 0, 1 << 20},
		{"0.5G", 0, 1 << 29},
		{".5G", 0, 1 << 29},
		{"64T", 0, 1 << 46},

		{"dvd", 0, whole(dvd - 4<<20)},
		{"DVD", 0, whole(dvd - 4<<20)},
		{"Dvd-DL", 0, whole(dvdDL - 4<<20)},
		{"bd25", 0, whole(bd25 - 16<<20)},
		{"BD50", 0, whole(bd50 - 16<<20)},
		{"fat32", 0, 4<<30 - 1<<20},
		{"FAT32", 0, 4<<30 - 1<<20},
		// What lies beside takes room on a medium that is filled, and none else.
		{"dvd", 1, whole(dvd - 4<<20 - 1)},
		{"dvd", 1 << 30, whole(dvd - 4<<20 - 1<<30)},
		{"fat32", 1 << 30, 4<<30 - 1<<20},
		{"4G", 1 << 30, 4 << 30},

		{"", 0, 0},
		{" ", 0, 0},
		{"GB", 0, 0},
		{"large", 0, 0},
		{"dvds", 0, 0},
		{"-1", 0, 0},
		{"-4G", 0, 0},
		{"+4G", 0, 4 << 30},
		{"NaN", 0, 0},
		{"NaNGB", 0, 0},
		{"Inf", 0, 0},
		{"-inf", 0, 0},
		{"infinity", 0, 0},
		{"1e9", 0, 0},
		{"1E9", 0, 0},
		{"0x4p30", 0, 0},
		{"0x100000000", 0, 0},
		{"1_000_000_000", 0, 0},
		{"4,7GB", 0, 0},
		{"4.7.1GB", 0, 0},
		{"4GBB", 0, 0},
		{"4 G B", 0, 4_000_000_000},
		{"0", 0, 0},
		{"1", 0, 0},
		{"1M1", 0, 0},
		{"1048575", 0, 0},
		{"0.9999M", 0, 0},
		{"65T", 0, 0},
		{"99999999999T", 0, 0},
		{strings.Repeat("9", 400), 0, 0},
		{"dvd", 5_000_000_000, 0},
		{"dvd", dvd - 4<<20 - 1<<20 + 1, 0},
	} {
		got, err := archive.ParseSize(c.text, c.beside)
		if c.want == 0 && err == nil || c.want != 0 && (err != nil || got != c.want) {
			t.Errorf("ParseSize(%q, %d) = %d, %v; want %d", c.text, c.beside, got, err, c.want)
		}
	}
}

// TestMediaHold: every medium has room for its volumes, and they are numbered by three digits.
func TestMediaHold(t *testing.T) {
	for _, m := range archive.Media {
		n, err := archive.ParseSize(m.Name, 0)
		if err != nil || n > m.Size || n%(1<<20) != 0 || n < m.Size-m.Overhead-1<<20 {
			t.Errorf("%s of %d bytes is filled with %d, %v", m.Name, m.Size, n, err)
		}
	}
}

// FuzzParseSize: what is taken for a size is one that volumes may have.
func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"4.7GB", "dvd", "1e9", "NaN", "-0", "0x1p-2", "1T"} {
		f.Add(text, int64(0))
	}
	f.Fuzz(func(t *testing.T, text string, beside int64) {
		if beside < 0 || beside > archive.MaxFile {
			return
		}
		if n, err := archive.ParseSize(text, beside); err == nil && (n < archive.MinVolume || n > archive.MaxFile) {
			t.Fatalf("%q is %d bytes", text, n)
		}
	})
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 1000: "1.0 kB", 1500: "1.5 kB", 4_700_372_992: "4.7 GB",
		1_230_000_000: "1.2 GB", 999_949: "999.9 kB", 1_000_000: "1.0 MB", 999_999: "1.0 MB",
		1e12: "1.0 TB", 1e15: "1.0 PB", 1 << 62: "4611.7 PB",
	} {
		if got := archive.FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %q, want %q", n, got, want)
		}
	}
}
