// An S3 server on a folder, whose subfolders are the buckets: versitygw's
// gateway with its POSIX backend alone. versitygw's own command links the
// client libraries of Azure too, which nothing here needs.
//
//	ROOT_ACCESS_KEY=... ROOT_SECRET_KEY=... s3 --port HOST:PORT --region NAME FOLDER
package main

import (
	"context"
	"flag"
	"log"
	"os"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	port := flag.String("port", "127.0.0.1:7070", "address to listen at, HOST:PORT")
	region := flag.String("region", "us-east-1", "region that requests are signed for")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal("name one folder: its subfolders are the buckets")
	}
	if err := (meta.XattrMeta{}).Test(flag.Arg(0)); err != nil {
		log.Fatalf("%s: the file system keeps no extended attributes: %v", flag.Arg(0), err)
	}
	backend, err := posix.New(flag.Arg(0), meta.XattrMeta{}, posix.PosixOpts{
		IOBufferSize:        64 << 10, // objects are small: a megabyte each costs more than it saves
		CopyObjectThreshold: 5 << 30,
	})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Shutdown()
	// The limits are those of versitygw's own command.
	err = embedgw.RunVersityGW(context.Background(), backend, &embedgw.Config{
		RootUserAccess:    os.Getenv("ROOT_ACCESS_KEY"),
		RootUserSecret:    os.Getenv("ROOT_SECRET_KEY"),
		Region:            *region,
		Ports:             []string{*port},
		MaxConnections:    250_000,
		MaxRequests:       100_000,
		MultipartMaxParts: 10_000,
		KeepAlive:         true,
		Quiet:             true,
	})
	if err != nil {
		log.Fatal(err)
	}
}
